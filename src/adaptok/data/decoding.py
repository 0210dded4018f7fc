"""Decoding files into frames, and a cache of decoded frames.

Legend: `N` frames, `H`, `W` frame size.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

from adaptok.video.container import DEFAULT_FPS, decoded_frames, open_container, video_stream
from adaptok.video.conversion import to_rgb
from adaptok.video.limits import DEFAULT_LIMITS, Limits, limit_stream
from adaptok.video.reading import scaled

logger = logging.getLogger(__name__)

Frames = NDArray[np.uint8]

DECODING_ERRORS = (av.FFmpegError, OSError, ValueError)
"""Exceptions that opening and decoding a damaged file raises."""
_MAX_WARNINGS = 100  # about single files


class DecodedFrames(NamedTuple):
    """Frames `[N, H, W, 3]` and their times `[N]` in seconds from the beginning of the file."""

    frames: Frames
    times: NDArray[np.float64]


class FrameCache:
    """Least-recently-used cache of decoded frames with a capacity in bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._entries: OrderedDict[str, DecodedFrames] = OrderedDict()

    def get(self, key: str, load: Callable[[], DecodedFrames]) -> DecodedFrames:
        """Return the entry of `key`, and load it first if it is missing."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        decoded = load()
        if decoded.frames.nbytes <= self.capacity:
            self._entries[key] = decoded
            self.used += decoded.frames.nbytes
        while self.used > self.capacity:
            self.used -= self._entries.popitem(last=False)[1].frames.nbytes
        return decoded


class FileSet:
    """Files of one kind. Unreadable ones are reported once and skipped from then on.

    Attributes:
        broken: Reason for each file that could not be read so far.
        num_files: Number of files, broken ones included.
    """

    def __init__(self) -> None:
        self.broken: dict[str, str] = {}
        self.num_files = 0

    def exclude(self, path: Path, reason: str) -> None:
        """Skip a file from now on."""
        if str(path) not in self.broken:
            self.broken[str(path)] = reason
            if len(self.broken) <= _MAX_WARNINGS:
                logger.warning("skipping %s: %s", path, reason)
            elif len(self.broken) == _MAX_WARNINGS + 1:
                logger.warning("more than %d files are broken, and skipped without a warning", _MAX_WARNINGS)

    def load(self, path: Path, load: Callable[[], DecodedFrames]) -> DecodedFrames | None:
        """Return the frames of a file, or None if it is broken. The caller then draws another file."""
        if str(path) in self.broken:
            return None
        try:
            return load()
        except DECODING_ERRORS as error:
            self.exclude(path, describe_error(error))
            return None


def describe_error(error: Exception) -> str:
    """Format an error in one line, with its type."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def open_video_stream(path: Path, limits: Limits = DEFAULT_LIMITS) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open the first video stream of a file. A photograph is a video stream of one frame.

    Raises:
        VideoError: The file cannot be opened, has no video stream, or its frames are too large.
    """
    with open_container(path) as container:
        stream = video_stream(container, path)
        limit_stream(stream, path, limits)
        yield container, stream


def decode(
    path: Path,
    max_frames: int,
    short_side: int | None = None,
    start: Fraction | None = None,
    fps: Fraction | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> DecodedFrames:
    """Decode up to `max_frames` frames. Damaged parts of the file and frames that change size are left out.

    Args:
        short_side: Scale frames down so that their short side has at most this many pixels.
        start: Seconds from the beginning of the file. Decoding starts at the last key frame before it, and frames
            earlier than half a period before it are dropped.
        fps: Frames per second of a video. It defines the period, and the times of frames without a timestamp.
        limits: Largest frames that are decoded.

    Raises:
        ValueError, OSError, av.FFmpegError: Nothing can be decoded.
    """
    frames: list[Frames] = []
    times: list[float] = []
    damage: list[str] = []
    with open_video_stream(path, limits) as (container, stream):
        for frame, time in _iter_timed_frames(container, stream, start, float(fps or DEFAULT_FPS), damage.append):
            frames.append(_to_rgb(frame, short_side))
            times.append(time)
            if len(frames) == max_frames:
                break
    if damage and frames:
        logger.warning("%s is damaged, %d frames are used: %s", path, len(frames), damage[0])
    same_size = [index for index, frame in enumerate(frames) if frame.shape == frames[0].shape]
    if not same_size:
        raise ValueError(f"no frame could be decoded ({damage[0]})" if damage else "no frame could be decoded")
    return DecodedFrames(np.stack([frames[index] for index in same_size]), np.array(times)[same_size])


def _iter_timed_frames(
    container: InputContainer,
    stream: VideoStream,
    start: Fraction | None,
    fps: float,
    on_damage: Callable[[str], None],
) -> Iterator[tuple[VideoFrame, float]]:
    """Yield frames from `start` on, each with its time in seconds."""
    base = stream.time_base
    origin = float((stream.start_time or 0) * base) if base is not None else 0.0
    time = -1 / fps
    if start is not None and base is not None:
        container.seek(round(start / base) + (stream.start_time or 0), stream=stream)
        time += float(start)
    earliest = -np.inf if start is None else float(start) - 0.5 / fps
    for frame in decoded_frames(container, stream, on_damage):
        time = time + 1 / fps if frame.time is None else frame.time - origin
        if time >= earliest:
            yield frame, time


def _to_rgb(frame: VideoFrame, short_side: int | None) -> Frames:
    """Convert a frame to RGB `[H, W, 3]`, rotated for display."""
    width, height = scaled(frame.width, frame.height, short_side)
    area = Interpolation.AREA  # FFmpeg's bilinear scaling is antialiased too, but blurs more
    rgb = to_rgb(frame, width=width, height=height, interpolation=area)
    return np.rot90(rgb, round(frame.rotation / 90) % 4) if frame.rotation else rgb
