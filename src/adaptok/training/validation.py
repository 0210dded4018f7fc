"""Figures of a model on fixed clips, while it trains."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptok.metrics.distortion import edge_ratio, psnr, sharpness
from adaptok.metrics.lpips import clip_lpips
from adaptok.models.model import Model
from adaptok.training.objectives import Draw, Measures, ScorerObjective

SHARES = (8, 4, 2, 1)
"""Lengths that are measured: K divided by these."""
PERCEIVED_FRAMES = slice(3, None, 8)
"""Frames of every clip that LPIPS is measured on: VGG16 takes longer for a clip than the tokenizer."""


def validate_tokenizer(
    model: Model, clips: Tensor, measures: Measures | None = None, batch: int = 8
) -> dict[str, float]:
    """Measure a tokenizer on clips.

    Args:
        clips: `[N, C, T, S, S]` in [0, 1].
        measures: networks of LPIPS; it is left out without them.
        batch: clips that are decoded at once.

    Returns:
        Means over clips by name and length: PSNR in dB at an eighth, a quarter, half and all of the latents of every
        block; edge ratio and sharpness at all of them; LPIPS of two frames of every clip at half and all.
    """
    tokenizer = model.tokenizer
    measures = measures or Measures()
    results: dict[str, list[Tensor]] = {}

    def note(name: str, length: int, values: Tensor) -> None:
        results.setdefault(f"validation_{name}_{length}", []).append(values)

    for part in clips.split(batch):
        inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(part)).codes)
        for share in SHARES:
            length = tokenizer.config.latents // share
            decoded = tokenizer.decode(inputs, [[length] * tokenizer.config.blocks] * len(part)).float().clamp(0, 1)
            note("psnr", length, psnr((decoded - part).square().mean((1, 2, 3, 4))))
            if share == 1:
                note("edge_ratio", length, edge_ratio(decoded, tokenizer.config.patch_size))
                note("sharpness", length, sharpness(decoded, part))
            for name, lpips in measures._asdict().items():
                if lpips is not None and share <= 2:
                    seen = (x[:, :, PERCEIVED_FRAMES] for x in (decoded, part))
                    note(name, length, clip_lpips(lpips, *seen).mean(1))
    return {name: torch.cat(values).mean().item() for name, values in results.items()}


def validate_scorer(objective: ScorerObjective, clips: Tensor, rounds: int = 8) -> dict[str, float]:
    """Loss and mean relative error of a scorer's predictions, over random blocks and earlier lengths."""
    outcomes = [
        objective(
            clips, Draw(torch.Generator().manual_seed(seed), torch.Generator(clips.device).manual_seed(seed)), 0, 0.0
        )
        for seed in range(rounds)
    ]
    error = torch.stack([outcome.metrics["relative_error"] for outcome in outcomes]).mean().item()
    return {
        "validation_loss": torch.stack([outcome.loss for outcome in outcomes]).mean().item(),
        "validation_relative_error": error,
    }
