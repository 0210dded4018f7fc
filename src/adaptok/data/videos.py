"""Training clips from videos.

Legend: `N` frames of a video, `T` frames of a clip, `S` side of a clip in pixels, `H`, `W` frame size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adaptok.data.augmentation import centre_crop, resize
from adaptok.data.decoding import DECODING_ERRORS, FileSet, FrameCache, Frames, decode
from adaptok.data.manifests import VIDEO_SUFFIXES, Paths, find_entries, no_readable_message
from adaptok.data.statistics import collect_statistics
from adaptok.video.container import DEFAULT_FPS
from adaptok.video.reading import scaled

MAX_ATTEMPTS = 100
"""Broken files drawn in a row before drawing a clip fails."""
_SEGMENT_FRAMES = 512  # longer videos are decoded and cached in segments, so that memory does not grow with length


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """Properties of the clips that a source draws.

    Attributes:
        frames, size: T and S.
        start: Whether clips start at a random frame or at the first one of a video.
        strides: Candidate steps between video frames. One is drawn per clip.
        crop: Whether a random square of the frames is cropped, or their short side is resized to S and their center
            cropped.
        still_fraction: Fraction of the video clips that show one frame for their whole duration.
        min_crop: Side of the smallest random crop of a video, as a fraction of S. Much smaller crops only show blur.
    """

    frames: int
    size: int
    start: Literal["random", "first"] = "random"
    strides: tuple[int, ...] = (1,)
    crop: Literal["random", "center"] = "random"
    still_fraction: float = 0.0
    min_crop: float = 0.9

    @property
    def short_side(self) -> int | None:
        """Short side that frames are scaled down to while they are decoded. None is their own size."""
        return None if self.crop == "center" else self.size * 9 // 8


@dataclass(frozen=True, slots=True)
class _Segment:
    """Consecutive frames of a video, starting at `start` seconds. None is the beginning of the video."""

    path: Path
    start: Fraction | None
    frames: int
    fps: Fraction


@dataclass(frozen=True)
class _View:
    """Frames `first + i * stride` of a segment, and a square crop, in fractions of the possible range."""

    first: int
    stride: int
    side: float
    top: float
    left: float


class VideoFolder(FileSet):
    """Videos of folders (searched recursively) or lists.

    `clip` draws a video with a probability proportional to the square root of its number of frames, a compromise
    between the amount of footage and variety. A collection that fits the cache is decoded once. For a larger one, only
    the frames of each clip are decoded, from the last key frame before them. Both give the same clips.
    """

    def __init__(
        self, folders: Paths, root: str | Path | None = None, progress: Callable[[int], None] | None = None
    ) -> None:
        """List the videos, and open each one that is not described by an index.

        Args:
            folders, root: As for `find_entries`.
            progress: Called with the number of files just opened.

        Raises:
            FileNotFoundError: A folder does not exist.
            ValueError: No video is readable.
        """
        super().__init__()
        self.videos: list[_Segment] = []  # whole
        self.segments: list[_Segment] = []
        weights: list[float] = []
        self._sizes: list[tuple[int, int, int]] = []  # frames, width, height of every video
        for entry in collect_statistics(find_entries(folders, VIDEO_SUFFIXES, root), progress):
            self.num_files += 1
            if entry.error is not None or entry.frames is None:
                self.exclude(entry.path, entry.error or "unknown number of frames")
                continue
            fps, frames = entry.fps or DEFAULT_FPS, entry.frames
            self.videos.append(_Segment(entry.path, None, frames, fps))
            pieces = math.ceil(frames / _SEGMENT_FRAMES)
            edges = [frames * piece // pieces for piece in range(pieces + 1)]
            for start, stop in pairwise(edges):
                self.segments.append(_Segment(entry.path, start / fps if start else None, stop - start, fps))
                weights.append((stop - start) / frames**0.5)
            self._sizes.append((frames, entry.width or 640, entry.height or 360))
        if not self.segments:
            raise ValueError(no_readable_message("video", folders, self.broken))
        self._bytes: dict[int | None, int] = {}
        self._thresholds = np.cumsum(weights) / sum(weights)

    def __len__(self) -> int:
        return len(self._sizes)

    def clip(self, rng: np.random.Generator, spec: ClipSpec, cache: FrameCache) -> Tensor:
        """Draw a random crop `[3, T, S, S]` of random consecutive frames. See `ClipSource`."""
        for _ in range(MAX_ATTEMPTS):
            segment = self.segments[min(int(np.searchsorted(self._thresholds, rng.random())), len(self.segments) - 1)]
            view = _draw_view(rng, spec, segment.frames)
            frames = self._frames(segment, view, spec, cache)
            if frames is not None:
                return _crop(frames, view, spec)
        raise self._no_readable_error()

    def clip_of(self, index: int, rng: np.random.Generator, spec: ClipSpec, cache: FrameCache) -> Tensor:
        """Draw a clip `[3, T, S, S]` of video `index`, or of a random one if it is broken. See `ClipSource`."""
        for _ in range(MAX_ATTEMPTS):
            video = self.videos[index]
            view = _draw_view(rng, spec, video.frames)
            if video.frames > _SEGMENT_FRAMES:  # decode the frames of the clip alone
                start = view.first / video.fps if view.first else None
                frames = min(_span(spec.frames, view.stride), video.frames - view.first)
                video, view = replace(video, start=start, frames=frames), replace(view, first=0)
            frames_read = self._frames(video, view, spec, cache)
            if frames_read is not None:
                return _crop(frames_read, view, spec)
            index = int(rng.integers(len(self.videos)))
        raise self._no_readable_error()

    def _no_readable_error(self) -> ValueError:
        return ValueError(f"{MAX_ATTEMPTS} videos in a row could not be read, such as {list(self.broken)[-3:]}")

    def bytes(self, short_side: int | None) -> int:
        """Return the memory that all frames take when scaled to this short side, or at their own size."""
        if short_side not in self._bytes:
            self._bytes[short_side] = sum(3 * n * math.prod(scaled(w, h, short_side)) for n, w, h in self._sizes)
        return self._bytes[short_side]

    def _frames(self, segment: _Segment, view: _View, spec: ClipSpec, cache: FrameCache) -> Frames | None:
        """Return the T frames of a view at a size suitable for its crop, or None if the file is broken."""
        short = spec.short_side
        start = (segment.start or Fraction(0)) + view.first / segment.fps
        span = min(_span(spec.frames, view.stride), segment.frames - view.first)
        if str(segment.path) not in self.broken and self.bytes(short) > cache.capacity:
            with suppress(*DECODING_ERRORS):  # damaged files and those without random access are decoded as a whole
                return _select(decode(segment.path, span, short, start or None, segment.fps).frames, 0, view, spec)
        key = f"{segment.path}#{segment.start}@{short}"
        whole = self.load(
            segment.path,
            lambda: cache.get(key, lambda: decode(segment.path, segment.frames, short, segment.start, segment.fps)),
        )
        if whole is None:
            return None
        first = int(np.searchsorted(whole.times, float(start) - 0.5 / float(segment.fps)))
        if first >= len(whole.frames):  # the file has fewer frames than its header says
            first = max(0, len(whole.frames) - span)
        return _select(whole.frames[: first + span], first, view, spec)


def _draw_view(rng: np.random.Generator, spec: ClipSpec, count: int) -> _View:
    """Draw a view of a segment of `count` frames."""
    stride = spec.strides[rng.integers(len(spec.strides))]
    stride = 0 if rng.random() < spec.still_fraction else stride
    starts = 1 if spec.start == "first" else max(1, count - _span(spec.frames, stride) + 1)
    first = int(rng.integers(starts))
    return _View(first, stride, *rng.random(3))


def _span(frames: int, stride: int) -> int:
    """Return the number of video frames from the first to the last frame of a clip."""
    return (frames - 1) * stride + 1


def _select(frames: Frames, first: int, view: _View, spec: ClipSpec) -> Frames:
    """Select the T frames of a view, or one for a still clip. The last frame is repeated if the video ends too soon."""
    offsets: NDArray[np.int64] = np.arange(spec.frames if view.stride else 1) * view.stride
    return frames[np.minimum(first + offsets, len(frames) - 1)]


def _crop(frames: Frames, view: _View, spec: ClipSpec) -> Tensor:
    """Crop the square of a view and resize it to `[3, T, S, S]`."""
    if spec.crop == "center":
        return centre_crop(frames, spec.size).expand(-1, spec.frames, -1, -1)
    height, width = frames.shape[1:3]
    short = min(height, width)
    smallest = min(round(spec.size * spec.min_crop), short)
    side = smallest + int(view.side * (short - smallest + 1))
    top, left = int(view.top * (height - side + 1)), int(view.left * (width - side + 1))
    clip = resize(frames[:, top : top + side, left : left + side], spec.size, spec.size)
    return clip.expand(-1, spec.frames, -1, -1)
