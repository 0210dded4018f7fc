"""Two folders of videos, compared clip by clip, whoever made them; and features of one folder.

Legend: `n` clips of a unit, `M` metrics, `F` features.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.data.decoding import DECODING_ERRORS, describe_error
from adaptok.data.manifests import VIDEO_SUFFIXES, find_entries
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.partial_results import Part, Plan, PlannedVideo, VideoRecord, note_source, planned
from adaptok.evaluation.protocols import Cut
from adaptok.utils.files import sha256_of


def pair_videos(reference: Path, prediction: Path) -> list[PlannedVideo]:
    """Every video of the reference with that of the same name (path within the folder, without suffix) beside it.

    Raises:
        FileNotFoundError: a folder does not exist.
        ValueError: a folder has no videos, or their names do not pair.
    """
    sides = [_named(folder) for folder in (reference, prediction)]
    for mine, theirs, folder in ((sides[0], sides[1], prediction), (sides[1], sides[0], reference)):
        if lone := sorted(mine.keys() - theirs.keys()):
            raise ValueError(f"{folder}: has no {lone[0]} ({len(lone)} of {len(mine)} are missing); names must pair")
    pairs = []
    for name, path in sides[0].items():
        other = sides[1][name]
        video = planned(path, reference, other=other)
        pairs.append(video.model_copy(update={"other": other.relative_to(prediction).as_posix()}))
    return pairs


def _named(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected one of videos")
    found: dict[str, Path] = {}
    for entry in find_entries(folder, VIDEO_SUFFIXES):
        name = entry.path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"{entry.path}: shares its name with {found[name].name}; names must be unique")
        found[name] = entry.path
    if not found:
        raise ValueError(f"{folder}: no video in it")
    return found


class PairsTask:
    """Measures predictions against references. See `Task`; `plan` is of the kind "pairs".

    Videos of a pair must have the same number of frames and, where the plan names no size, the same size.
    """

    def __init__(self, measures: Measures, plan: Plan, reference: Path, prediction: Path, device: torch.device) -> None:
        self.measures, self.plan, self.device = measures, plan, device
        self.reference, self.prediction = reference, prediction
        self.cut = Cut(plan.protocol, plan.frames, plan.size, plan.partial)

    def measure(self, unit: int) -> Part:
        """Arrays: `metrics` `[n, 1, M]`; `features` `[n, 2, F]`, NaN for a clip that is shorter than a whole one."""
        started = time.perf_counter()
        records, metrics, features = [], [], []
        for video in self.plan.of_unit(unit):
            record = VideoRecord(video.path, video.label)
            records.append(record)
            for true, made in self._pairs(video, record):
                metrics.append(self.measures.clip(made, true)[None])
                if self.measures.detector is not None:
                    features.append(self._features(true, made))
                record.clips += 1
        arrays: dict[str, NDArray[np.generic]] = {}
        if metrics:
            arrays["metrics"] = np.stack(metrics)
        known = next((f for f in features if f is not None), None)
        if known is not None:
            arrays["features"] = np.stack([np.full_like(known, np.nan) if f is None else f for f in features])
        return Part(records, arrays, {"measure": time.perf_counter() - started})

    def _features(self, true: Tensor, made: Tensor) -> NDArray[np.float32] | None:
        if true.shape[1] < self.plan.frames:
            return None
        return np.stack([self.measures.features(clip) for clip in (true, made)])

    def _pairs(self, video: PlannedVideo, record: VideoRecord) -> Iterator[tuple[Tensor, Tensor]]:
        """Clips of both, on the device.

        Raises:
            ValueError: they do not fit each other, or one cannot be read: a mean over what is left would deceive.
        """
        assert video.other is not None
        paths = self.reference / video.path, self.prediction / video.other
        record.sha256, record.other_sha256 = (sha256_of(path) for path in paths)

        note = partial(note_source, record)
        for true, made in zip_longest(self.cut.clips(paths[0], note), self.cut.clips(paths[1])):
            if true is None or made is None or true.shape != made.shape:
                raise ValueError(
                    f"{paths[1]}: does not fit {paths[0]}: {_shape(made)} against {_shape(true)}; expected as many"
                    " frames of the same size (--size brings both to one square)"
                )
            yield true.to(self.device), made.to(self.device)


def _shape(clip: Tensor | None) -> str:
    return "no more frames" if clip is None else f"{clip.shape[1]} frames of {clip.shape[3]}x{clip.shape[2]}"


class FeaturesTask:
    """Features of the clips of a collection. See `Task`; `plan` is of the kind "features"."""

    def __init__(self, measures: Measures, plan: Plan, root: Path, device: torch.device) -> None:
        self.measures, self.plan, self.root, self.device = measures, plan, root, device
        self.cut = Cut(plan.protocol, plan.frames, plan.size)

    def measure(self, unit: int) -> Part:
        """Arrays: `features` `[n, 1, F]`."""
        started = time.perf_counter()
        records, features = [], []
        for video in self.plan.of_unit(unit):
            record = VideoRecord(video.path, video.label)
            records.append(record)
            try:
                for clip in self.cut.clips(self.root / video.path, partial(note_source, record)):
                    features.append(self.measures.features(clip.to(self.device))[None])
                    record.clips += 1
                record.sha256 = sha256_of(self.root / video.path)
            except DECODING_ERRORS as error:
                record.skipped = describe_error(error)
        arrays = {"features": np.stack(features)} if features else {}
        return Part(records, arrays, {"measure": time.perf_counter() - started})
