"""Measurements of a model on held-out clips during training.

Legend: `N` clips, `C` channels, `T` frames, `S` pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from adaptok.metrics.distortion import edge_ratio, psnr, sharpness
from adaptok.metrics.lpips import clip_lpips
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.models.quantizer import Quantized, VectorQuantizer
from adaptok.training.clip_data import Clips
from adaptok.training.codebook import codebook_metrics, count_ids
from adaptok.training.losses import LpipsNetworks
from adaptok.training.objectives import GeneratorObjective, ScorerObjective, StepContext, most_likely
from adaptok.training.sequences import SequenceDataset, TokenSequence, pack

LENGTH_DIVISORS = (8, 4, 2, 1)
"""Tokenizers are measured at the maximum length divided by each of these."""
LPIPS_FRAMES = slice(3, None, 8)
"""Frames of each clip that LPIPS is measured on, since VGG16 takes longer per clip than the tokenizer."""
ACCURACY_ENTRIES = 4096
"""Maximum number of entries that the accuracy is measured on, since it needs the probability of every id."""


BATCH_SIZE = 8
"""Clips that are read and measured at once."""
TOP = (1, 5)
"""Numbers of most likely ids among which the prior's accuracy looks for the right one."""


def read_batches(clips: Clips, device: torch.device, batch_size: int = BATCH_SIZE) -> Iterator[Tensor]:
    """Read clips in batches `[B, C, T, S, S]`, so that only one batch is in memory."""
    for start in range(0, len(clips), batch_size):
        yield torch.stack([clips[i] for i in range(start, min(start + batch_size, len(clips)))]).to(device)


@torch.inference_mode()
def validate_tokenizer(
    model: Model, clips: Clips, networks: LpipsNetworks | None = None, batch_size: int = BATCH_SIZE
) -> dict[str, float]:
    """Measure a tokenizer on clips.

    Args:
        model: model with the tokenizer.
        clips: clips `[C, T, S, S]` in [0, 1].
        networks: networks for LPIPS, which is omitted without them.
        batch_size: clips processed at once.

    Returns:
        Means over clips, by name and length: PSNR in dB at an eighth, a quarter, half and all of the latents of every
        block; edge ratio and sharpness at all of them; LPIPS of two frames of every clip at half and all. Usage and
        perplexity of the codebook, and the accuracy of the prior if there is one, with all latents.
    """
    tokenizer = model.tokenizer
    networks = networks or LpipsNetworks()
    results: dict[str, list[Tensor]] = {}

    def record(name: str, length: int, values: Tensor) -> None:
        results.setdefault(f"validation_{name}_{length}", []).append(values)

    counts = torch.zeros(tokenizer.config.quantizer.codebook_size, dtype=torch.int64, device=model.device)
    for batch in read_batches(clips, model.device, batch_size):
        quantized = tokenizer.quantize(tokenizer.encode(batch))
        counts += count_ids(quantized.ids, len(counts))
        for name, values in prior_accuracy(model, quantized).items():
            results.setdefault(f"validation_{name}", []).append(values)
        inputs = tokenizer.project_codes(quantized.codes)
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
    means = {name: torch.cat(values).mean().item() for name, values in results.items()}
    return means | {f"validation_{name}": value.item() for name, value in codebook_metrics(counts).items()}


def prior_accuracy(model: Model, quantized: Quantized) -> dict[str, Tensor]:
    """Measure how often the id after each latent is among the 1 and 5 ids that the prior finds most likely, given all
    latents up to it. Returns values `[B]` for each clip, or none if the model has no prior."""
    prior, quantizer = model.prior, model.tokenizer.quantizer
    if prior is None or not isinstance(quantizer, VectorQuantizer):
        return {}
    codes, ids = quantized.codes.flatten(1, 2), quantized.ids.flatten(1)  # [B, N, Z], [B, N]
    positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    accuracies: dict[str, list[Tensor]] = {f"prior_top{top}": [] for top in TOP}
    for clip in range(len(ids)):  # the logits of a clip take N x V values
        rows = slice(clip, clip + 1)
        logits = prior(codes[rows, :-1], positions[rows, :-1], quantizer.codebook)[0]
        likely = logits.topk(min(max(TOP), logits.shape[-1])).indices  # [N - 1, 5]
        found = likely == ids[clip, 1:, None]
        for top in TOP:
            accuracies[f"prior_top{top}"].append(found[:, :top].any(-1).float().mean())
    return {name: torch.stack(values) for name, values in accuracies.items()}


@torch.inference_mode()
def validate_scorer(objective: ScorerObjective, clips: Clips, rounds: int = 8) -> dict[str, float]:
    """Measure a scorer over random blocks and lengths: its loss, and the mean relative errors of distortions and of the
    shape of their curves."""
    device, totals = objective.model.device, torch.zeros(3, dtype=torch.float64)
    for batch in read_batches(clips, device):
        for seed in range(rounds):
            output = objective(batch, StepContext.seeded(seed, device))
            values = [output.loss, output.metrics["relative_error"], output.metrics["shape_error"]]
            totals += len(batch) * torch.stack(values).double().cpu()
    loss, error, shape = (totals / (rounds * len(clips))).tolist()
    return {"validation_loss": loss, "validation_relative_error": error, "validation_shape_error": shape}


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
