"""Random clips of videos.

Legend: `N` frames of a video, `T` frames of a clip, `S` pixels of its side, `H`, `W` size of a source picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adaptok.data.decoding import Decoded, FileSet, FrameCache, Frames, decode
from adaptok.data.manifests import VIDEO_SUFFIXES, Folders, find_entries
from adaptok.data.statistics import UNREADABLE, survey
from adaptok.video.reading import scaled

_SEGMENT_FRAMES = 512  # a longer video is decoded and cached in pieces, so that memory does not grow with its length
_ATTEMPTS = 100


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """What a source is asked for.

    frames, size: T and S.
    strides: a video is sampled at every first, second … frame; one is drawn per clip.
    still_share: share of the video clips that show one frame all the time.
    least_crop: side of the smallest square that is cut from a video, as a share of S: much smaller ones only show blur.
    """

    frames: int
    size: int
    strides: tuple[int, ...] = (1,)
    still_share: float = 0.0
    least_crop: float = 0.9


@dataclass(frozen=True, slots=True)
class _Segment:
    """Some consecutive frames of a video: from `start` seconds on (None: from its beginning), `frames` of them."""

    path: Path
    start: Fraction | None
    frames: int
    rate: Fraction


@dataclass(frozen=True)
class _View:
    """What a clip shows of a segment: frames `first + i * stride`, and a square, all in shares of what there is."""

    first: int
    stride: int
    side: float
    top: float
    left: float

    def span(self, frames: int) -> int:
        return (frames - 1) * self.stride + 1


class VideoFolder(FileSet):
    """The videos in some folders and the folders within, or in lists of files.

    A video is drawn with a probability in proportion to the square root of its number of frames: long ones more often,
    but not at the cost of variety. A collection that fits the cache is decoded once; of a larger one, only the frames
    of a clip are, from the last key frame before them. The clips are the same.
    """

    def __init__(
        self, folders: Folders, root: str | Path | None = None, advance: Callable[[int], None] | None = None
    ) -> None:
        """Look through the folders and open every video once, except those that an index knows.

        Args:
            root: where relative paths in lists start.
            advance: called with the number of files just opened.

        Raises:
            FileNotFoundError: a folder does not exist.
            ValueError: there is no readable video.
        """
        super().__init__()
        self.segments: list[_Segment] = []
        weights: list[float] = []
        self._shapes: list[tuple[int, int, int]] = []  # frames, width, height of every video
        for entry in survey(find_entries(folders, VIDEO_SUFFIXES, root), advance):
            self.listed += 1
            if entry.error is not None or entry.frames is None:
                self.exclude(entry.path, entry.error or "its length is not known")
                continue
            rate, frames = entry.rate or Fraction(25), entry.frames
            pieces = math.ceil(frames / _SEGMENT_FRAMES)
            edges = [frames * piece // pieces for piece in range(pieces + 1)]
            for start, stop in pairwise(edges):
                self.segments.append(_Segment(entry.path, start / rate if start else None, stop - start, rate))
                weights.append((stop - start) / frames**0.5)
            self._shapes.append((frames, entry.width or 640, entry.height or 360))
        if not self.segments:
            raise ValueError(nothing("video", folders, self.broken))
        self._bytes: dict[int, int] = {}
        self._thresholds = np.cumsum(weights) / sum(weights)

    def __len__(self) -> int:
        return len(self._shapes)

    def clip(self, rng: np.random.Generator, shape: ClipShape, cache: FrameCache) -> Tensor:
        """A random crop `[3, T, S, S]` of random consecutive frames; see `ClipSource`."""
        for _ in range(_ATTEMPTS):
            index = min(int(np.searchsorted(self._thresholds, rng.random())), len(self.segments) - 1)
            segment = self.segments[index]
            view = _draw_view(rng, shape, segment.frames)
            frames = self._frames(segment, view, shape, cache)
            if frames is not None:
                return _crop(frames, view, shape)
        raise ValueError(f"{_ATTEMPTS} videos in a row could not be read; the last ones: {list(self.broken)[-3:]}")

    def bytes(self, short_side: int) -> int:
        """Memory that all frames take at this size."""
        if short_side not in self._bytes:
            sizes = ((n, *scaled(w, h, short_side)) for n, w, h in self._shapes)
            self._bytes[short_side] = sum(3 * frames * width * height for frames, width, height in sizes)
        return self._bytes[short_side]

    def _frames(self, segment: _Segment, view: _View, shape: ClipShape, cache: FrameCache) -> Frames | None:
        """The T frames of a view, at a size that is near the clip's."""
        short = shape.size * 9 // 8
        start = (segment.start or Fraction(0)) + view.first / segment.rate
        span = min(view.span(shape.frames), segment.frames - view.first)
        if str(segment.path) not in self.broken and self.bytes(short) > cache.capacity:
            alone = _sought(segment, start, span, short)
            if alone is not None:
                return _take(alone.frames, 0, view, shape)
        key = f"{segment.path}#{segment.start}@{short}"
        whole = self.load(
            segment.path,
            lambda: cache.get(key, lambda: decode(segment.path, segment.frames, short, segment.start, segment.rate)),
        )
        if whole is None:
            return None
        first = int(np.searchsorted(whole.times, float(start) - 0.5 / float(segment.rate)))
        if first >= len(whole.frames):  # a file that is shorter than it says
            first = max(0, len(whole.frames) - span)
        return _take(whole.frames[: first + span], first, view, shape)


def _sought(segment: _Segment, start: Fraction, span: int, short: int) -> Decoded | None:
    """The frames of a clip alone; None where the file does not give them, being damaged or impossible to enter."""
    try:
        return decode(segment.path, span, short, start or None, segment.rate)
    except UNREADABLE:
        return None


def nothing(kind: str, folders: Folders, broken: dict[str, str]) -> str:
    """The message that a collection has nothing readable."""
    places = folders if isinstance(folders, str | Path) else ", ".join(map(str, folders))
    first = "".join(f"; {path}: {why}" for path, why in list(broken.items())[:1])
    return f"no readable {kind} in {places} ({len(broken)} broken{first})"


def resize(frames: Frames, height: int, width: int) -> Tensor:
    """`[T, H, W, 3]` to `[3, T, height, width]` in [0, 1], antialiased bilinear."""
    pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    if pictures.shape[2:] != (height, width):
        pictures = F.interpolate(pictures, size=(height, width), mode="bilinear", antialias=True)
    return pictures.transpose(0, 1)


def _draw_view(rng: np.random.Generator, shape: ClipShape, count: int) -> _View:
    """A view of a segment of `count` frames."""
    stride = shape.strides[rng.integers(len(shape.strides))]
    stride = 0 if rng.random() < shape.still_share else stride
    span = (shape.frames - 1) * stride + 1
    return _View(int(rng.integers(max(1, count - span + 1))), stride, *rng.random(3))


def _take(frames: Frames, first: int, view: _View, shape: ClipShape) -> Frames:
    """T frames of a view, or one where nothing moves; a video that ends too soon repeats its last frame."""
    steps: NDArray[np.int64] = np.arange(shape.frames if view.stride else 1) * view.stride
    return frames[np.minimum(first + steps, len(frames) - 1)]


def _crop(frames: Frames, view: _View, shape: ClipShape) -> Tensor:
    """The square of a view `[3, T, S, S]`."""
    height, width = frames.shape[1:3]
    short = min(height, width)
    least = min(round(shape.size * shape.least_crop), short)
    side = least + int(view.side * (short - least + 1))
    top, left = int(view.top * (height - side + 1)), int(view.left * (width - side + 1))
    clip = resize(frames[:, top : top + side, left : left + side], shape.size, shape.size)
    return clip.expand(-1, shape.frames, -1, -1)
