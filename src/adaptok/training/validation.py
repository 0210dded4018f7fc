"""Figures of a model on fixed clips, while it trains."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptok.evaluation.distortion import psnr
from adaptok.models.model import Model
from adaptok.training.objectives import Draw, ScorerObjective


def validate_tokenizer(model: Model, clips: Tensor, batch: int = 8) -> dict[str, float]:
    """PSNR in dB, the mean over clips, at an eighth, a quarter, half and all of the latents of every block."""
    tokenizer = model.tokenizer
    results: dict[str, list[Tensor]] = {}
    for part in clips.split(batch):
        inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(part)).codes)
        for share in (8, 4, 2, 1):
            length = tokenizer.config.latents // share
            decoded = tokenizer.decode(inputs, [[length] * tokenizer.config.blocks] * len(part)).float()
            mse = (decoded.clamp(0, 1) - part).square().mean((1, 2, 3, 4))
            results.setdefault(f"validation_psnr_{length}", []).append(psnr(mse))
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
