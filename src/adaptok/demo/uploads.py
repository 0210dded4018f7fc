"""Checks of uploaded clips."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from adaptok.video.container import VideoError, VideoInfo
from adaptok.video.reading import probe

FORMATS = "MP4, MOV, MKV, WebM or AVI"
"""Common formats among those that FFmpeg reads, as messages name them."""
MAX_FPS = Fraction(30)
"""Frames per second above which a clip is sampled at fewer."""
MAX_PIXELS = 4096 * 2304
"""Largest number of pixels of a frame."""


@dataclass(frozen=True)
class UploadLimits:
    """Limits of uploaded clips.

    Args:
        seconds: Part of a clip that is used, from its beginning.
        megabytes: Largest size of a file, in units of 10^6 bytes.

    Raises:
        ValueError: A limit is not positive.
    """

    seconds: float = 10.0
    megabytes: float = 100.0

    def __post_init__(self) -> None:
        for name, value in (("seconds", self.seconds), ("megabytes", self.megabytes)):
            if not value > 0:
                raise ValueError(f"limit of {value:g} {name}, expected more than 0")


@dataclass(frozen=True)
class Upload:
    """A clip that can be read, and the part of it that is used.

    Attributes:
        path: The file.
        info: Its properties.
        stop: End of the part that is used, in seconds; None if the whole clip is used.
        fps: Frames per second to sample the clip at; None uses its own rate.
        frames: Expected number of frames; None if unknown.
    """

    path: Path
    info: VideoInfo
    stop: float | None
    fps: Fraction | None
    frames: int | None

    @property
    def name(self) -> str:
        """Name of the file without its suffix."""
        return self.path.stem

    def describe(self) -> str:
        """Describe the clip, and what is left out of it, in sentences."""
        info = self.info
        length = "" if info.duration is None else f", {info.duration:.1f} seconds"
        text = (
            f"{self.path.name}: {info.width} × {info.height} pixels{length}, {float(info.fps):.3g} frames per second."
        )
        if self.stop is not None and (info.duration is None or info.duration > self.stop):
            text += f" The first {self.stop:g} seconds are used."
        if self.fps is not None:
            text += f" It is sampled at {float(self.fps):g} frames per second."
        if info.audio:
            text += " Its sound is copied to the downloaded video."
        return text


def check_upload(path: str | Path, limits: UploadLimits) -> Upload:
    """Check that an uploaded file is a video within the limits.

    Raises:
        ValueError: It is not. The message names the file without its folder.
    """
    path = Path(path)
    try:
        size = path.stat().st_size / 1e6
        if size > limits.megabytes:
            raise ValueError(
                f"{path.name}: {size:.0f} MB, expected at most {limits.megabytes:g} MB; cut or compress it"
            )
        info = probe(path)
    except FileNotFoundError:
        raise ValueError(f"{path.name}: no longer on the server; upload it again") from None
    except VideoError as error:
        raise ValueError(str(error).replace(str(path), path.name)) from None
    if info.width * info.height > MAX_PIXELS:
        raise ValueError(
            f"{path.name}: frames of {info.width} × {info.height} pixels, expected at most"
            f" {MAX_PIXELS / 1e6:.1f} million pixels; scale it down"
        )
    stop = None if info.duration is not None and info.duration <= limits.seconds else limits.seconds
    fps = MAX_FPS if info.fps > MAX_FPS else None
    seconds = limits.seconds if info.duration is None else min(info.duration, limits.seconds)
    return Upload(path, info, stop, fps, max(1, round(seconds * (fps or info.fps))))
