"""Evaluation of a folder of videos against a folder of references, and features of a collection.

Legend: `n` clips of a unit, `M` metrics, `F` features.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.choices import ProtocolName
from adaptok.data.manifests import VIDEO_SUFFIXES, find_entries
from adaptok.evaluation.examples import Example
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.partial_results import PartialResult, PartialResults, VideoRecord
from adaptok.evaluation.plan import VIDEOS_PER_UNIT, Plan, PlannedVideo, collection_root, plan_video, plan_videos
from adaptok.evaluation.protocols import ClipSelection
from adaptok.evaluation.results import ClipRank, Variant
from adaptok.evaluation.summary import TokenFormat
from adaptok.utils.files import sha256_of


def pair_videos(reference: Path, prediction: Path) -> list[PlannedVideo]:
    """Pair the videos of two folders by name: their path within the folder, without suffix.

    Raises:
        FileNotFoundError: a folder does not exist.
        ValueError: a folder has no videos, or a video has no counterpart.
    """
    references, predictions = _by_name(reference), _by_name(prediction)
    for names, others, folder in ((references, predictions, prediction), (predictions, references, reference)):
        if missing := sorted(names.keys() - others.keys()):
            raise ValueError(
                f"{folder}: has no {missing[0]} ({len(missing)} of {len(names)} are missing); names must pair"
            )
    return [
        plan_video(path, reference, other=predictions[name], other_root=prediction) for name, path in references.items()
    ]


def _by_name(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder, expected a folder of videos")
    paths: dict[str, Path] = {}
    for entry in find_entries(folder, VIDEO_SUFFIXES):
        name = entry.path.relative_to(folder).with_suffix("").as_posix()
        if name in paths:
            raise ValueError(f"{entry.path}: has the same name as {paths[name].name}; names must be unique")
        paths[name] = entry.path
    if not paths:
        raise ValueError(f"{folder}: no videos in this folder, expected {', '.join(sorted(VIDEO_SUFFIXES))}")
    return paths


class PairsEvaluation:
    """Evaluation of a folder of videos against a folder of references, paired by name.

    Videos of a pair must have the same number of frames and, without `size`, the same size.

    Args:
        measures: metrics to measure.
        reference, prediction: the folders.
        protocol: which clips are measured.
        frames: frames per clip; a last clip may be shorter, unless the protocol is "adaptok".
        size: side of the square that both are resized to; None keeps their size.
        patch_size: side in pixels of the patches on whose grid the edge ratio is measured.
        device: device that measures.

    Raises:
        FileNotFoundError: a folder does not exist.
        ValueError: there are no videos, or their names do not pair.
    """

    def __init__(
        self,
        measures: Measures,
        reference: Path,
        prediction: Path,
        *,
        protocol: ProtocolName = "all",
        frames: int = 16,
        size: int | None = None,
        patch_size: int = 16,
        device: torch.device | None = None,
    ) -> None:
        self.measures = replace(measures, patch_size=patch_size)
        self.reference, self.prediction, self.device = reference, prediction, device or torch.device("cpu")
        self.plan = Plan(
            kind="pairs",
            protocol=protocol,
            frames=frames,
            size=size,
            partial=protocol == "all",
            metrics=self.measures.all_metrics,
            detector=measures.detector_name,
            patch_size=self.measures.used_patch_size,
            videos=tuple(pair_videos(reference, prediction)),
        )
        self.selection = ClipSelection(protocol, frames, size, self.plan.partial)
        self.variants = [Variant(None, "prediction")]
        self.tokens: TokenFormat | None = None

    def measure(self, unit: int) -> PartialResult:
        """Measure one unit of the plan.

        The arrays are `metrics` `[n, 1, M]` and, with a detector, `features` `[n, 2, F]`, which are NaN for clips that
        are shorter than those of the plan.
        """
        started = time.perf_counter()
        records, metrics, features = [], [], []
        for video in self.plan.of_unit(unit):
            record = VideoRecord(video.path, video.label)
            records.append(record)
            for reference, prediction in self._pairs(video, record):
                metrics.append(self.measures.clip(prediction, reference)[None])
                if self.measures.detector is not None:
                    features.append(self._features(reference, prediction))
                record.clips += 1
        arrays: dict[str, NDArray[np.generic]] = {}
        if metrics:
            arrays["metrics"] = np.stack(metrics)
        whole = next((row for row in features if row is not None), None)
        if whole is not None:
            arrays["features"] = np.stack([np.full_like(whole, np.nan) if row is None else row for row in features])
        return PartialResult(records, arrays, {"measure": time.perf_counter() - started})

    def example(self, results: PartialResults, clip: ClipRank) -> Example:
        """Read a clip of both folders."""
        video = next(v for v in self.plan.of_unit(clip.unit) if v.path == clip.video)
        paths = {"reference": self.reference / video.path, "prediction": self.prediction / str(video.other)}
        return Example.of(clip, [(name, self.selection.clip(path, clip.clip)) for name, path in paths.items()])

    def _features(self, reference: Tensor, prediction: Tensor) -> NDArray[np.float32] | None:
        if reference.shape[1] < self.plan.frames:
            return None
        return np.stack([self.measures.features(reference, real=True), self.measures.features(prediction)])

    def _pairs(self, video: PlannedVideo, record: VideoRecord) -> Iterator[tuple[Tensor, Tensor]]:
        """Read the clips of both videos, on the device.

        Raises:
            ValueError: the videos have different frames, or one cannot be read. A mean over the rest would mislead.
        """
        assert video.other is not None
        paths = self.reference / video.path, self.prediction / video.other
        record.sha256, record.other_sha256 = (sha256_of(path) for path in paths)
        for clips in zip_longest(self.selection.clips(paths[0], record.note), self.selection.clips(paths[1])):
            reference, prediction = clips
            if reference is None or prediction is None or reference.shape != prediction.shape:
                raise ValueError(
                    f"{paths[1]}: does not fit {paths[0]}: {_shape(prediction)} against {_shape(reference)}; expected"
                    " as many frames of the same size (--size resizes both to one square)"
                )
            yield reference.to(self.device), prediction.to(self.device)


def _shape(clip: Tensor | None) -> str:
    return "no more frames" if clip is None else f"{clip.shape[1]} frames of {clip.shape[3]}x{clip.shape[2]}"


class FeaturesEvaluation:
    """Features of the first clip of every video of a collection.

    Args:
        measures: measures with a detector.
        data: folder of videos, or a list of them.
        size: side of the square in pixels.
        frames: frames per clip.
        count: number of videos to use, the first ones; None uses all.
        root: folder that relative paths of a list refer to.
        device: device that measures.
        real: whether the videos are real ones, whose features are cached.

    Raises:
        ValueError: there are fewer videos than `count`.
    """

    def __init__(
        self,
        measures: Measures,
        data: Path,
        *,
        size: int,
        frames: int = 16,
        count: int | None = None,
        root: Path | None = None,
        device: torch.device | None = None,
        real: bool = True,
    ) -> None:
        videos = plan_videos(data, root)
        if count is not None and len(videos) < count:
            raise ValueError(
                f"{data}: {len(videos)} samples, the protocol takes {count}; make more, or give --count {len(videos)}"
                " for a figure that does not compare with others"
            )
        self.measures, self.root, self.device = measures, collection_root(data, root), device or torch.device("cpu")
        self.real = real
        self.plan = Plan(
            kind="features",
            protocol="adaptok",
            frames=frames,
            size=size,
            metrics=("fvd",),
            detector=measures.detector_name,
            unit=VIDEOS_PER_UNIT,
            videos=videos[:count],
        )
        self.selection = ClipSelection("adaptok", frames, size)

    def measure(self, unit: int) -> PartialResult:
        """Measure one unit of the plan. The array is `features` `[n, 1, F]`."""
        started = time.perf_counter()
        records, features = [], []
        for video in self.plan.of_unit(unit):
            record = VideoRecord(video.path, video.label)
            records.append(record)
            for clip in record.read(self.root / video.path, self.selection):
                features.append(self.measures.features(clip.to(self.device), real=self.real)[None])
        arrays = {"features": np.stack(features)} if features else {}
        return PartialResult(records, arrays, {"measure": time.perf_counter() - started})
