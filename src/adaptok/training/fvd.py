"""Fréchet video distance of a model on validation data, during training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptok.codec.codec import AdapTok
from adaptok.config.training import AnyConfig
from adaptok.metrics.frechet import FeatureStatistics, frechet_distance
from adaptok.metrics.fvd import Detector, open_detector
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.training.clip_data import Clips
from adaptok.training.reporting import pad_ids, sample_ids
from adaptok.training.sequences import SequenceDataset, condition_of
from adaptok.training.validation import BATCH_SIZE, read_batches

LENGTH_DIVISORS = (2, 1)
"""The FVD of reconstructions is measured at the maximum length divided by each of these."""


def find_detector(config: AnyConfig, device: torch.device) -> Detector | None:
    """Load the detector of a run, if it measures FVD.

    Raises:
        FileNotFoundError: the weights do not exist.
        ValueError: the file holds no detector, or none is named and none was downloaded.
    """
    if not config.fvd_every or config.stage == "scorer":
        return None
    return open_detector(None if config.i3d_weights is None else Path(config.i3d_weights), device=device)


@torch.inference_mode()
def reconstruction_fvd(detector: Detector, model: Model, clips: Clips) -> dict[str, float]:
    """Measure the FVD between clips `[C, T, S, S]` in [0, 1] and their reconstructions, by name and length."""
    tokenizer = model.tokenizer
    lengths = [tokenizer.config.latents // divisor for divisor in LENGTH_DIVISORS]
    originals: list[Tensor] = []
    decoded: dict[int, list[Tensor]] = {length: [] for length in lengths}
    for batch in read_batches(clips, model.device):
        originals.append(_features(detector, batch))
        inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(batch)).codes)
        for length in lengths:
            output = tokenizer.decode(inputs, [[length] * tokenizer.config.blocks] * len(batch))
            decoded[length].append(_features(detector, output.float().clamp(0, 1)))
    return {f"validation_fvd_{length}": _distance(originals, parts) for length, parts in decoded.items()}


@torch.inference_mode()
def generation_fvd(
    detector: Detector, model: GeneratorModel, codec: AdapTok, sequences: SequenceDataset
) -> dict[str, float]:
    """Measure the FVD between the decoded clips of a token dataset and clips generated under their conditions."""
    real: list[Tensor] = []
    generated: list[Tensor] = []
    for start in range(0, len(sequences), BATCH_SIZE):
        clips = [sequences.dataset[int(place)] for place in sequences.clips[start : start + BATCH_SIZE]]
        conditions = np.stack([condition_of(clip, model.config, sequences.labels) for clip in clips])
        samples = sample_ids(model, torch.from_numpy(conditions).to(model.device), seed=start)
        for parts, tokens in ((real, pad_ids(clips, model.config.latents, model.device)), (generated, samples)):
            parts.append(_features(detector, codec.decode_clips(*tokens).float().clamp(0, 1)))
    return {"validation_fvd": _distance(real, generated)}


def _features(detector: Detector, clips: Tensor) -> Tensor:
    return torch.from_numpy(detector.features(clips))


def _distance(first: Iterable[Tensor], second: Iterable[Tensor]) -> float:
    one, other = (FeatureStatistics.of(torch.cat(list(parts)).numpy()) for parts in (first, second))
    return frechet_distance(one, other)
