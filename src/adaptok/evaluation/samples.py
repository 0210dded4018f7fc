"""Evaluation of a generator: samples and predictions against the windows of a collection.

Every window gives one real clip and one sample of its class, or one prediction from its first frames. A sample has a
seed of its own, so the results do not depend on batches, interruptions or the number of processes.

Legend: `n` windows of a unit, `T` frames, `S` pixels of a side, `F` features.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.choices import GenerationKind
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.partial_results import PartialResult, VideoRecord
from adaptok.evaluation.plan import Plan, PlannedVideo, collection_root
from adaptok.evaluation.protocols import GENERATION, ClipSelection
from adaptok.evaluation.results import Variant
from adaptok.evaluation.windows import draw_windows
from adaptok.generation import Generator, Sampling
from adaptok.generation.conditions import encode_conditions
from adaptok.generation.sampling import clip_seed
from adaptok.models.model import weights_hash

MAX_UNIT, MIN_UNITS = 64, 8
"""Maximum number of windows of a partial result, which are sampled as one running batch, and a minimum of results."""


class SamplesEvaluation:
    """Evaluation of a generator by the published protocol.

    Args:
        generator: generator with its tokenizer.
        measures: measures with a detector.
        data: folder of videos, or a list of them.
        kind: "class" (class-conditional generation) or "frame" (frame prediction).
        count: number of windows; None is that of the protocol.
        settings: settings of the draw; None draws from the distribution of the generator.
        seed: seed of the samples. The windows have a seed of their own.
        batch_size: maximum number of clips sampled at a time. Results do not depend on it.
        root: folder that relative paths of a list refer to.
        autocast: type of the tokenizer's matrix products; None computes in the type of its weights.

    Raises:
        ValueError: the generator is of the other kind, there are too few windows, or a label is missing or unknown.
    """

    def __init__(
        self,
        generator: Generator,
        measures: Measures,
        data: Path,
        *,
        kind: GenerationKind,
        count: int | None = None,
        settings: Sampling | None = None,
        seed: int = 0,
        batch_size: int = 8,
        root: Path | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.codec, self.protocol = generator.check_codec(), GENERATION[kind]
        config = self.codec.config.tokenizer
        if bool(generator.config.condition_ids) != (kind == "frame"):
            made, other = ("frames", "prediction") if generator.config.condition_ids else ("classes", "generation")
            raise ValueError(
                f"the generator {generator.config.name!r} is one of {made}; use 'adaptok evaluate {other}'"
            )
        self.generator, self.measures, self.kind = generator, measures, kind
        self.settings, self.batch_size, self.autocast = settings or Sampling(), batch_size, autocast
        self.settings.check(generator.config)
        self.root = collection_root(data, root)
        windows = draw_windows(data, count or self.protocol.count, frames=config.frames, root=root)
        if kind == "class":
            _check_labels(generator, windows)
        self.plan = Plan(
            kind="samples",
            protocol="adaptok",
            frames=config.frames,
            size=self.protocol.size,
            metrics=("fvd",),
            detector=measures.detector_name,
            model=self.codec.config.name,
            model_hash=self.codec.weights_hash,
            dtype=_name(self.codec.dtype),
            autocast=None if autocast is None else _name(autocast),
            generator=generator.config.name,
            generator_hash=weights_hash(generator.model.state_dict(), ""),
            generator_dtype=_name(generator.model.dtype),
            sampling=json.dumps(asdict(self.settings), sort_keys=True),
            seed=seed,
            unit=max(1, min(MAX_UNIT, len(windows) // MIN_UNITS)),
            videos=windows,
        )
        self.seed = seed
        self.selection = ClipSelection("adaptok", config.frames, config.size)
        self.variants = [Variant(None, "samples")]

    def measure(self, unit: int) -> PartialResult:
        """Measure one unit of the plan. The array is `features` `[n, 2, F]`, those of the real clip first."""
        seconds = dict.fromkeys(("sample", "measure"), 0.0)
        started = time.perf_counter()
        records, clips, numbers = [], [], []
        for number, window in enumerate(self.plan.of_unit(unit), unit * self.plan.unit):
            record = VideoRecord(window.path, window.label)
            records.append(record)
            for clip in record.read(self.root / window.path, replace(self.selection, start=window.start)):
                clips.append(clip)
                numbers.append(number)
        features = {index: [self._features(clip, real=True)] for index, clip in enumerate(clips)}
        seconds["measure"] += time.perf_counter() - started
        if clips:
            self._sample(clips, numbers, features, seconds)
        arrays: dict[str, NDArray[np.float32]] = {}
        if clips:
            arrays["features"] = np.stack([np.stack(features[index]) for index in range(len(clips))])
        return PartialResult(records, arrays, seconds)

    def _sample(
        self,
        clips: Sequence[Tensor],
        numbers: Sequence[int],
        features: dict[int, list[NDArray[np.float32]]],
        seconds: dict[str, float],
    ) -> None:
        """Sample a clip for each window, and append its features to those of the real clip."""
        started = time.perf_counter()
        labels, conditions = None, None
        if self.kind == "class":
            windows = [self.plan.videos[number] for number in numbers]
            labels = self.generator.classes([str(window.label) for window in windows])
        else:
            conditions = self._conditions(clips)
        seeds = [clip_seed(self.seed, number) for number in numbers]
        for index, samples in self.generator.iter_sample(
            labels, conditions, settings=self.settings, seeds=seeds, batch_size=self.batch_size
        ):
            with self._precision():
                clip = self.generator.decode(samples)[0].float()
            now = time.perf_counter()
            seconds["sample"] += now - started
            features[index].append(self._features(clip, real=False))
            started = time.perf_counter()
            seconds["measure"] += started - now

    def _conditions(self, clips: Sequence[Tensor]) -> Tensor:
        """Encode the first frames of clips `[3, T, S, S]` in batches."""
        count = self.generator.condition_frames
        rows = []
        for first in range(0, len(clips), self.batch_size):
            frames = torch.stack([clip[:, :count] for clip in clips[first : first + self.batch_size]])
            with self._precision():
                rows.append(encode_conditions(self.generator.config, self.codec, frames))
        return torch.cat(rows)

    def _features(self, clip: Tensor, *, real: bool) -> NDArray[np.float32]:
        """Features of a clip `[3, T, S, S]`, resized (antialiased bilinear) to the square of the protocol."""
        size, clip = self.protocol.size, clip.to(self.codec.device)
        if clip.shape[-1] != size:
            frames = F.interpolate(clip.transpose(0, 1), (size, size), mode="bilinear", antialias=True)
            clip = frames.clamp(0, 1).transpose(0, 1)
        return self.measures.features(clip, real=real)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.codec.device.type, self.autocast, enabled=self.autocast is not None)


def _check_labels(generator: Generator, windows: Sequence[PlannedVideo]) -> None:
    for label, path in {window.label: window.path for window in windows}.items():
        if label is None:
            raise ValueError(f"{path}: has no label, expected one; give a list with labels, or one folder per class")
        generator.classes([label])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
