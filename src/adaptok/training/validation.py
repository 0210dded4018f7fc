"""Measurements of a model on held-out clips during training.

Legend: `N` clips, `C` channels, `T` frames, `S` pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adaptok.metrics.distortion import edge_ratio, psnr, sharpness
from adaptok.metrics.lpips import clip_lpips
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.training.losses import LpipsNetworks
from adaptok.training.objectives import GeneratorObjective, ScorerObjective, StepContext, most_likely
from adaptok.training.sequences import SequenceDataset, TokenSequence, pack

LENGTH_DIVISORS = (8, 4, 2, 1)
"""Tokenizers are measured at the maximum length divided by each of these."""
LPIPS_FRAMES = slice(3, None, 8)
"""Frames of each clip that LPIPS is measured on, since VGG16 takes longer per clip than the tokenizer."""
ACCURACY_ENTRIES = 4096
"""Maximum number of entries that the accuracy is measured on, since it needs the probability of every id."""


@torch.inference_mode()
def validate_tokenizer(
    model: Model, clips: Tensor, networks: LpipsNetworks | None = None, batch_size: int = 8
) -> dict[str, float]:
    """Measure a tokenizer on clips.

    Args:
        model: model with the tokenizer.
        clips: `[N, C, T, S, S]` in [0, 1].
        networks: networks for LPIPS, which is omitted without them.
        batch_size: clips processed at once.

    Returns:
        Means over clips, by name and length: PSNR in dB at an eighth, a quarter, half and all of the latents of every
        block; edge ratio and sharpness at all of them; LPIPS of two frames of every clip at half and all.
    """
    tokenizer = model.tokenizer
    networks = networks or LpipsNetworks()
    results: dict[str, list[Tensor]] = {}

    def record(name: str, length: int, values: Tensor) -> None:
        results.setdefault(f"validation_{name}_{length}", []).append(values)

    for batch in clips.split(batch_size):
        inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(batch)).codes)
        for divisor in LENGTH_DIVISORS:
            length = tokenizer.config.latents // divisor
            decoded = tokenizer.decode(inputs, [[length] * tokenizer.config.blocks] * len(batch)).float().clamp(0, 1)
            record("psnr", length, psnr((decoded - batch).square().mean((1, 2, 3, 4))))
            if divisor == 1:
                record("edge_ratio", length, edge_ratio(decoded, tokenizer.config.patch_size))
                record("sharpness", length, sharpness(decoded, batch))
            for name, lpips in networks._asdict().items():
                if lpips is not None and divisor <= 2:
                    frames = (x[:, :, LPIPS_FRAMES] for x in (decoded, batch))
                    record(name, length, clip_lpips(lpips, *frames).mean(1))
    return {name: torch.cat(values).mean().item() for name, values in results.items()}


@torch.inference_mode()
def validate_scorer(objective: ScorerObjective, clips: Tensor, rounds: int = 8) -> dict[str, float]:
    """Measure the loss and the mean relative error of a scorer, over random blocks and lengths of earlier blocks."""
    outputs = [objective(clips, StepContext.seeded(seed, clips.device)) for seed in range(rounds)]
    return {
        "validation_loss": torch.stack([output.loss for output in outputs]).mean().item(),
        "validation_relative_error": torch.stack([o.metrics["relative_error"] for o in outputs]).mean().item(),
    }


@torch.inference_mode()
def validate_generator(model: GeneratorModel, sequences: SequenceDataset, batch_size: int) -> dict[str, float]:
    """Measure the loss in nats, the bits per token, and the accuracy of the most likely entry, over all sequences."""
    objective, device = GeneratorObjective(model).eval(), model.device
    total, hidden, targets = 0.0, [], []
    for start in range(0, len(sequences), batch_size):
        batch: list[TokenSequence] = [sequences[i] for i in range(start, min(start + batch_size, len(sequences)))]
        packed = pack(batch, model.config).to(device)
        states = objective.hidden_states(packed)
        total += float(objective.losses(states, packed.targets).double().sum())
        hidden.append(states)
        targets.append(packed.targets)
    all_states, all_targets = torch.cat(hidden), torch.cat(targets)
    stride = math.ceil(len(all_targets) / ACCURACY_ENTRIES)
    correct = most_likely(model, all_states[::stride]) == all_targets[::stride]
    loss = total / len(all_targets)
    return {
        "validation_loss": loss,
        "validation_bits_per_token": loss / math.log(2),
        "validation_accuracy": correct.double().mean().item(),
    }
