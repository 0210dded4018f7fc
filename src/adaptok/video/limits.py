"""Limits of the size of frames and of the duration of videos, which files of strangers may exaggerate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from av.video.stream import VideoStream

from adaptok.video.container import VideoError


@dataclass(frozen=True)
class Limits:
    """Largest frames and longest videos that are read or decoded.

    A file of a few kilobytes may state any size and any duration. They are compared with the limits before memory is
    reserved and frames are decoded.

    Args:
        max_pixels: Largest number of pixels of a frame. The default, 2^26 or 8192 × 8192, admits 8K video.
        max_duration: Longest part of a video that is encoded or decoded, in seconds. The default is a day.

    Raises:
        ValueError: A limit is not positive.
    """

    max_pixels: int = 2**26
    max_duration: float = 86400.0

    def __post_init__(self) -> None:
        if self.max_pixels < 1 or not self.max_duration > 0:
            raise ValueError(
                f"max_pixels {self.max_pixels} and max_duration {self.max_duration}, expected positive numbers"
            )

    def check_size(self, name: object, width: int, height: int, advice: str = "scale it down") -> None:
        """Raise a VideoError, with the name of the video or picture, unless its frames are small enough."""
        if width * height > self.max_pixels:
            raise VideoError(
                f"{name}: frames of {width}x{height} pixels, expected at most {self.max_pixels} pixels; raise"
                f" --max-pixels (Limits in Python), or {advice}"
            )

    def check_duration(
        self, name: object, seconds: float | Fraction, advice: str = "select a part with --start and --stop"
    ) -> None:
        """Raise a VideoError, with the name of the video, unless it is short enough."""
        if seconds > self.max_duration:
            raise VideoError(
                f"{name}: {float(seconds):.0f} seconds, expected at most {self.max_duration:g}; raise --max-duration"
                f" (Limits in Python), or {advice}"
            )


DEFAULT_LIMITS = Limits()
ANY_DURATION = Limits(max_duration=math.inf)
"""For videos that are read clip by clip, or of which only the first frames are needed."""
NO_LIMITS = Limits(max_pixels=2**31 - 1, max_duration=math.inf)
"""Nothing beyond the limits of FFmpeg, for videos that have been checked before."""


def limit_stream(stream: VideoStream, path: Path, limits: Limits) -> None:
    """Make the decoder of a stream refuse frames that are too large, also where their size changes later.

    Raises:
        VideoError: The file states such a size.
    """
    codec = stream.codec_context
    limits.check_size(path, codec.width, codec.height)
    codec.options = {**codec.options, "max_pixels": str(limits.max_pixels)}
