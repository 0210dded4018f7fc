"""Anything that frames come from: a file, an array of frames, or float clips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.video.reading import VideoReader

DEFAULT_FPS = Fraction(30)
"""Frames per second of arrays that come without a frame rate."""
RANGE_SLACK = 1e-3
"""How far float values may leave [0, 1]: resampling overshoots."""

Frame = NDArray[Any]
"""`[H, W, 3]`, uint8, or float32 in [0, 1]."""
Video = str | Path | NDArray[Any] | Tensor


@dataclass
class FrameSource:
    """Frames of one video, in order, once.

    Attributes:
        frames: `[H, W, 3]` each.
        fps: frames per second.
        total: how many are expected, where that is known.
        warning: what was wrong with the video, once it is read.
    """

    frames: Iterator[Frame]
    width: int
    height: int
    fps: Fraction
    total: int | None
    reader: VideoReader | None = field(default=None, repr=False)

    @property
    def warning(self) -> str | None:
        return None if self.reader is None else self.reader.warning


@contextmanager
def open_frames(
    video: Video, *, start: float = 0.0, stop: float | None = None, fps: Fraction | float | None = None
) -> Iterator[FrameSource]:
    """Open a video.

    Args:
        video: a path; frames uint8 `[T, H, W, 3]`; or consecutive clips float `[B, 3, T, H, W]` in [0, 1].
        start, stop: part of it, in seconds.
        fps: frames per second to sample a file at, or that an array has.

    Raises:
        VideoError: the file cannot be read.
        ValueError: an array has another shape, type or range.
    """
    if isinstance(video, str | Path):
        with VideoReader(video, start=start, stop=stop, fps=fps) as reader:
            info = reader.info
            yield FrameSource(iter(reader), info.width, info.height, reader.fps, reader.expected, reader)
        return
    frames = _array_frames(video)
    pace = DEFAULT_FPS if fps is None else Fraction(fps).limit_denominator(100_000)
    first, last = round(start * pace), None if stop is None else round(stop * pace)
    part = frames[first:last]
    if len(part) == 0:
        raise ValueError(
            f"no frame between {start} and {stop} seconds, the video has {len(frames)} at {pace} per second"
        )
    yield FrameSource(iter(part), part.shape[2], part.shape[1], pace, len(part))


def _array_frames(video: Any) -> Frame:
    """`[T, H, W, 3]`, uint8 or float32."""
    if isinstance(video, Tensor):
        array = video.detach().cpu()
        values = array.float().numpy() if array.is_floating_point() else array.numpy()
    elif isinstance(video, np.ndarray):
        values = video
    else:
        raise ValueError(f"a video of type {type(video).__name__}, expected a path, an array or a tensor")
    shape, kind = values.shape, values.dtype
    if kind == np.uint8 and values.ndim == 4 and shape[3] == 3 and min(shape) > 0:
        return values
    if np.issubdtype(kind, np.floating) and values.ndim == 5 and shape[1] == 3 and min(shape) > 0:
        check_range(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)))
        frames = values.astype(np.float32, copy=False).transpose(0, 2, 3, 4, 1)
        return frames.reshape(-1, *frames.shape[2:])
    raise ValueError(
        f"an array of shape {tuple(shape)} and type {kind}, expected frames uint8 [T, H, W, 3]"
        " or clips float [B, 3, T, H, W]"
    )


def check_range(values: Tensor) -> None:
    """Raise ValueError unless all values are finite and in [0, 1], up to `RANGE_SLACK`."""
    if values.numel() == 0:
        return
    low, high = (float(x) for x in torch.aminmax(values))
    if low != low or high != high or low in (float("inf"), -float("inf")) or high == float("inf"):
        raise ValueError("values that are NaN or infinite, expected numbers in [0, 1]")
    if low < -RANGE_SLACK or high > 1 + RANGE_SLACK:
        raise ValueError(f"values from {low:g} to {high:g}, expected [0, 1]; divide 8-bit values by 255")
