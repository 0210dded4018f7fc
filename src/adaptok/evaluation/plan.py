"""Plans: the videos and options that the numbers of an evaluation depend on."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import field_validator

from adaptok.config.base import Config
from adaptok.config.choices import ProtocolName, Scope
from adaptok.data.manifests import VIDEO_SUFFIXES, find_entries

VIDEOS_PER_UNIT = 8
"""Videos per partial result if each has one clip."""


class PlannedVideo(Config):
    """A video of the plan. Size and modification time identify the file that was measured."""

    path: str
    """Path, relative to the folder of the collection if it lies in it."""
    label: str | None = None
    start: int = 0
    """First frame of the clip that is measured, for windows of a video."""
    other: str | None = None
    """Path of the video that it is compared with."""
    bytes: int = 0
    changed: int = 0
    other_bytes: int = 0
    other_changed: int = 0


class Plan(Config):
    """Everything that the numbers of an evaluation depend on."""

    kind: str
    """"tokenizer", "pairs", "features" or "samples"."""
    protocol: ProtocolName
    """Which clips are measured."""
    frames: int
    """Frames of a clip."""
    size: int | None
    """Side of the square in pixels; None keeps the size of the videos."""
    partial: bool = False
    """Whether the last clip of a video may be shorter."""
    metrics: tuple[str, ...]
    detector: str | None
    """SHA-256 of the detector of FVD."""
    model: str | None = None
    model_hash: str | None = None
    """SHA-256 of the tokenizer's weights."""
    scorer_hash: str | None = None
    """SHA-256 of the scorer's weights."""
    dtype: str | None = None
    scope: Scope | None = None
    """Which blocks share a budget."""
    budgets: tuple[float, ...] = ()
    batch_size: int | None = None
    """Clips per batch, for the scope "batch", whose results depend on it."""
    patch_size: int | None = None
    """Side in pixels of the patches on whose grid the edge ratio is measured; None if it is not measured."""
    uniform: bool = True
    """Whether uniform lengths are measured too."""
    patterns: tuple[float, ...] = ()
    """Fixed patterns that are measured: lengths of the first block relative to the others."""
    effort: int = 0
    """How much is computed to score blocks; 0 also where the model or the scope makes no use of more."""
    autocast: str | None = None
    """Floating-point format of the tokenizer's matrix products, if it differs from that of its weights."""
    generator: str | None = None
    generator_hash: str | None = None
    """SHA-256 of the generator's weights."""
    generator_dtype: str | None = None
    sampling: str | None = None
    """Settings of the draw, as JSON."""
    seed: int | None = None
    """Seed of the samples."""
    unit: int = 1
    """Videos per partial result."""
    videos: tuple[PlannedVideo, ...]

    @field_validator("protocol", mode="before")
    @classmethod
    def _rename_protocol(cls, value: object) -> object:
        return "adaptok" if value == "official" else value

    @property
    def units(self) -> int:
        """Number of partial results."""
        return -(-len(self.videos) // self.unit)

    def of_unit(self, index: int) -> tuple[PlannedVideo, ...]:
        """Videos of one partial result."""
        return self.videos[index * self.unit : (index + 1) * self.unit]


def collection_root(data: Path, root: Path | None = None) -> Path:
    """Folder that the relative paths of a collection refer to."""
    return root or (data if data.is_dir() else data.parent)


def plan_videos(data: Path, root: Path | None = None, *, by_path: bool = False) -> tuple[PlannedVideo, ...]:
    """Plan the videos of a folder or list, in its order or sorted by path.

    Raises:
        FileNotFoundError: the folder or list does not exist.
        ValueError: it has no videos.
    """
    start = collection_root(data, root)
    videos = tuple(plan_video(e.path, start, e.label) for e in find_entries(data, VIDEO_SUFFIXES, root))
    if by_path:
        videos = tuple(sorted(videos, key=lambda video: video.path))
    if not videos:
        raise ValueError(f"{data}: no videos, expected {', '.join(sorted(VIDEO_SUFFIXES))}")
    return videos


def plan_video(
    path: Path,
    root: Path,
    label: str | None = None,
    other: Path | None = None,
    other_root: Path | None = None,
    start: int = 0,
) -> PlannedVideo:
    """Plan a video of a collection. Missing files are planned too, and reported when they are read.

    Args:
        path, root: the video, and the folder of its collection.
        label: class of the video.
        other, other_root: the video that it is compared with, and the folder of its collection.
        start: first frame of a window.
    """
    size, changed = _stamp(path)
    values = {"path": _relative(path, root), "label": label, "bytes": size, "changed": changed, "start": start}
    if other is not None and other_root is not None:
        other_size, other_changed = _stamp(other)
        values |= {"other": _relative(other, other_root), "other_bytes": other_size, "other_changed": other_changed}
    return PlannedVideo.model_validate(values)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
