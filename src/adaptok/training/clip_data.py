"""Training and validation clips of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from adaptok.config.training import TrainingConfig
from adaptok.data.clips import ClipMixture, ClipSource, FirstClips, VideoEpochs
from adaptok.data.images import ImageFolder
from adaptok.data.manifests import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_entries
from adaptok.data.synthetic.drawings import Drawings
from adaptok.data.videos import VideoFolder


class Clips(Protocol):
    """Clips `[C, T, S, S]` in [0, 1] by index: a dataset, or a tensor `[N, C, T, S, S]`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True)
class ClipData:
    """Clips to train and validate on."""

    train: Dataset[Tensor]
    """Training clips `[C, T, S, S]` in [0, 1], by index."""
    validation: Clips | None
    """Validation clips `[C, T, S, S]` in [0, 1], by index, or None."""
    epoch_size: int | None = None
    """Number of readable files, which is the number of clips per epoch. None for clips that do not come from files."""
    broken: Mapping[str, str] = field(default_factory=dict)
    """Reasons why files cannot be read, by path. More may turn up while clips are read."""
    num_files: int = 0
    """Number of files, including broken ones."""


class ClipBatch(NamedTuple):
    """Batch of clips."""

    clips: Tensor
    """`[B, C, T, S, S]` in [0, 1]."""
    broken: dict[str, str]
    """Files that turned out to be broken since the last batch, with the reason."""


class ClipCollate:
    """Stack clips into batches, in whichever process reads them."""

    def __init__(self, dataset: Dataset[Tensor]) -> None:
        self.dataset = dataset
        self._reported: set[str] = set()

    def __call__(self, clips: list[Tensor]) -> ClipBatch:
        worker = get_worker_info()
        dataset = self.dataset if worker is None else worker.dataset
        broken: dict[str, str] = getattr(dataset, "broken", {})
        new = {path: reason for path, reason in broken.items() if path not in self._reported}
        self._reported |= new.keys()
        return ClipBatch(torch.stack(clips), new)


def open_clip_data(config: TrainingConfig, advance: Callable[[int], None] | None = None) -> ClipData:
    """Open the files that a configuration names.

    Args:
        config: configuration of the run.
        advance: called with the number of files just opened.

    Raises:
        FileNotFoundError: a folder or list does not exist.
        ValueError: a folder holds nothing that can be read, or too many files are broken.
    """
    tokenizer, data = config.model.tokenizer, config.data
    sources, weights = _open_sources(config, advance)
    if data.drawn_fraction:
        total = sum(weights) or 1.0
        weights = [weight / total * (1 - data.drawn_fraction) for weight in weights]
        sources.append(Drawings())
        weights.append(data.drawn_fraction)
    broken = {path: reason for source in sources for path, reason in source.broken.items()}
    num_files = sum(source.num_files for source in sources)
    check_broken(broken, num_files, data.max_broken_fraction)
    train = _mix(config, sources, weights)
    validation: Clips | None = None
    if data.validation is not None:
        validation = FirstClips(
            data.validation, frames=tokenizer.frames, size=tokenizer.size, count=data.validation_clips
        )
    return ClipData(train, validation, train.num_readable_files, broken, num_files)


def _mix(config: TrainingConfig, sources: list[ClipSource], weights: list[float]) -> ClipMixture:
    data = config.data
    options: dict[str, Any] = {
        "frames": config.model.tokenizer.frames,
        "size": config.model.tokenizer.size,
        "seed": config.seed,
        "start": data.clip_start,
        "strides": data.strides,
        "crop": data.crop,
        "flip": data.flip,
        "still_fraction": data.still_fraction,
        "text_fraction": data.text_fraction,
        "reversed_fraction": data.reversed_fraction,
        "cut_fraction": data.cut_fraction,
        "min_crop": data.min_crop,
        "cache_bytes": int(data.cache_gib * 2**30),
    }
    if data.sampling == "clips":
        return ClipMixture(sources, weights, **options)
    (videos,) = sources
    assert isinstance(videos, VideoFolder)
    return VideoEpochs(videos, **options)


def _open_sources(
    config: TrainingConfig, advance: Callable[[int], None] | None
) -> tuple[list[ClipSource], list[float]]:
    """Open videos and photographs. Returns the sources and the relative frequency of clips from each."""
    data = config.data
    if not data.train and data.drawn_fraction < 1:
        raise ValueError(
            "data.train is empty; give folders or lists of files with --data.train, or draw all clips with"
            " --data.drawn-fraction 1"
        )
    groups = [(entry,) for entry in data.train] if data.weights else [data.train] if data.train else []
    sources: list[ClipSource] = []
    weights: list[float] = []
    for group, weight in zip(groups, data.weights or [1.0] * len(groups), strict=True):
        videos = VideoFolder(group, data.root, advance) if _has_files(group, VIDEO_SUFFIXES, data.root) else None
        uses_images = data.sampling == "clips" and _has_files(group, IMAGE_SUFFIXES, data.root)
        images = ImageFolder(group, data.root) if uses_images else None
        if videos is None and images is None:
            kinds = "video or photograph" if data.sampling == "clips" else "video"
            raise ValueError(f"no {kinds} in {', '.join(group)}; check the paths in data.train")
        image_fraction = data.image_fraction if videos is not None else 1.0
        if videos is not None:
            sources.append(videos)
            weights.append(weight * (1 - image_fraction if images is not None else 1.0))
        if images is not None:
            sources.append(images)
            weights.append(weight * image_fraction)
    return sources, weights


def check_broken(broken: Mapping[str, str], num_files: int, max_fraction: float) -> None:
    """Raise ValueError if more than `max_fraction` of the files are broken."""
    if len(broken) > max_fraction * num_files:
        path, reason = next(iter(broken.items()))
        raise ValueError(
            f"{len(broken)} of {num_files} files cannot be read, more than data.max_broken_fraction {max_fraction:g}"
            f" allows; the first: {path}: {reason}"
        )


def _has_files(group: tuple[str, ...], suffixes: frozenset[str], root: str | None) -> bool:
    return next(find_entries(group, suffixes, root), None) is not None
