"""Frames of files, small enough to keep many of them.

Legend: `N` frames, `H`, `W` their size.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from adaptok.data.statistics import UNREADABLE, reason
from adaptok.video.reading import decoded_frames, scaled

logger = logging.getLogger(__name__)

Frames = NDArray[np.uint8]


class Decoded(NamedTuple):
    """Frames `[N, H, W, 3]` and their times `[N]` in seconds from the beginning of the file."""

    frames: Frames
    times: NDArray[np.float64]


class FrameCache:
    """Decoded frames by key, the least recently used dropped first once they fill `capacity` bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._entries: OrderedDict[str, Decoded] = OrderedDict()

    def get(self, key: str, load: Callable[[], Decoded]) -> Decoded:
        """The entry of this key, loaded if it is not there."""
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
    """Files of a kind, of which the unreadable ones are reported once and left out.

    Attributes:
        broken: those that could not be read so far, with the reason.
        listed: how many there are, broken ones included.
    """

    def __init__(self) -> None:
        self.broken: dict[str, str] = {}
        self.listed = 0

    def exclude(self, path: Path, why: str) -> None:
        """Leave a file out from now on."""
        if str(path) not in self.broken:
            self.broken[str(path)] = why
            logger.warning("skipping %s: %s", path, why)

    def load(self, path: Path, load: Callable[[], Decoded]) -> Decoded | None:
        """The frames, or None where the file is broken: the caller then draws again, from whatever process it asks."""
        if str(path) in self.broken:
            return None
        try:
            return load()
        except UNREADABLE as error:
            self.exclude(path, reason(error))
            return None


def decode(
    path: Path, most: int, short_side: int | None = None, start: Fraction | None = None, rate: Fraction | None = None
) -> Decoded:
    """The first `most` frames, scaled down so that the short side is at most `short_side`. Damaged parts are left out.

    Args:
        start: seconds from the beginning of the file; frames that are half a period earlier are left out, and the file
            is entered at the last key frame before.
        rate: frames per second, of a video; says how long a period is, and when frames without a time are shown.

    Raises:
        ValueError, OSError, av.FFmpegError: nothing can be decoded.
    """
    frames: list[Frames] = []
    times: list[float] = []
    damage: list[str] = []
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("there is no picture in it")
        for frame, time in _timed(container, start, float(rate or 25), damage.append):
            frames.append(picture(frame, short_side))
            times.append(time)
            if len(frames) == most:
                break
    if damage and frames:
        logger.warning("%s is damaged, %d frames are used: %s", path, len(frames), damage[0])
    same = [index for index, frame in enumerate(frames) if frame.shape == frames[0].shape]
    if not same:
        raise ValueError(f"no frame could be decoded ({damage[0]})" if damage else "no frame could be decoded")
    return Decoded(np.stack([frames[index] for index in same]), np.array(times)[same])


def _timed(
    container: av.container.InputContainer, start: Fraction | None, rate: float, note: Callable[[str], None]
) -> Iterator[tuple[av.VideoFrame, float]]:
    """Frames from `start` on with their times."""
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    base = stream.time_base
    origin = float((stream.start_time or 0) * base) if base is not None else 0.0
    time = -1 / rate
    if start is not None and base is not None:
        container.seek(round(start / base) + (stream.start_time or 0), stream=stream)
        time += float(start)
    earliest = -np.inf if start is None else float(start) - 0.5 / rate
    for frame in decoded_frames(container, stream, note):
        time = time + 1 / rate if frame.time is None else frame.time - origin
        if time >= earliest:
            yield frame, time


def picture(frame: av.VideoFrame, short_side: int | None) -> Frames:
    """RGB `[H, W, 3]` as it is shown."""
    width, height = scaled(frame.width, frame.height, short_side)
    # AREA averages every source pixel: bilinear scaling of FFmpeg is antialiased too, but blurs more
    area = Interpolation.AREA
    rgb = np.asarray(frame.to_ndarray(format="rgb24", width=width, height=height, interpolation=area), np.uint8)
    return np.rot90(rgb, round(frame.rotation / 90) % 4) if frame.rotation else rgb
