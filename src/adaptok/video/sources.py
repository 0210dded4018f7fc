"""Frame sources: the frames of a file, an array or clips, in one form."""

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

from adaptok.video.pixels import check_range
from adaptok.video.reading import VideoReader, describe_span

DEFAULT_FPS = Fraction(30)
"""Frames per second of arrays without a frame rate."""

Frame = NDArray[Any]
"""`[H, W, 3]`, uint8, or float32 in [0, 1]."""


@dataclass
class FrameSource:
    """Frames of one video, to be read once and in order.

    Attributes:
        frames: `[H, W, 3]` each.
        width, height: Size of a frame, in pixels.
        fps: Frames per second.
        total: Expected number of frames; None if unknown.
        warning: Description of damage, set when all frames have been read.
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


Video = str | Path | NDArray[Any] | Tensor | FrameSource


@contextmanager
def open_frames(
    video: Video, *, start: float = 0.0, stop: float | None = None, fps: Fraction | float | None = None
) -> Iterator[FrameSource]:
    """Open a video.

    Args:
        video: A path; frames uint8 `[T, H, W, 3]`; or consecutive clips float `[B, 3, T, H, W]` in [0, 1]. An open
            source is returned as it is.
        start, stop: Part of the video, in seconds.
        fps: Frames per second: the rate to sample a file at, or the rate of an array.

    Raises:
        VideoError: The file cannot be read.
        ValueError: The shape, type or range of an array is wrong, or no frame lies between `start` and `stop`.
    """
    if isinstance(video, FrameSource):
        yield video
        return
    if isinstance(video, str | Path):
        with VideoReader(video, start=start, stop=stop, fps=fps) as reader:
            info = reader.info
            yield FrameSource(iter(reader), info.width, info.height, reader.fps, reader.expected, reader)
        return
    frames = _array_frames(video)
    rate = DEFAULT_FPS if fps is None else Fraction(fps).limit_denominator(100_000)
    first, last = round(start * rate), None if stop is None else round(stop * rate)
    part = frames[first:last]
    if len(part) == 0:
        raise ValueError(
            f"no frame {describe_span(start, stop)}, expected a part of the {float(len(frames) / rate):g} seconds of"
            f" the video ({len(frames)} frames at {float(rate):g} per second)"
        )
    yield FrameSource(iter(part), part.shape[2], part.shape[1], rate, len(part))


def _array_frames(video: Any) -> Frame:
    """Return the frames `[T, H, W, 3]`, uint8 or float32, of an array."""
    if isinstance(video, Tensor):
        array = video.detach().cpu()
        values = array.float().numpy() if array.is_floating_point() else array.numpy()
    elif isinstance(video, np.ndarray):
        values = video
    else:
        raise ValueError(f"a video of type {type(video).__name__}, expected a path, an array or a tensor")
    shape, dtype = values.shape, values.dtype
    if dtype == np.uint8 and values.ndim == 4 and shape[3] == 3 and min(shape) > 0:
        return values
    if np.issubdtype(dtype, np.floating) and values.ndim == 5 and shape[1] == 3 and min(shape) > 0:
        check_range(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)))
        frames = values.astype(np.float32, copy=False).transpose(0, 2, 3, 4, 1)
        return frames.reshape(-1, *frames.shape[2:])
    raise ValueError(
        f"an array of shape {tuple(shape)} and type {dtype}, expected frames uint8 [T, H, W, 3]"
        " or clips float [B, 3, T, H, W]"
    )
