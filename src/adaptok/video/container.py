"""Video files as FFmpeg opens them: checks, properties, and the decoded frames of a stream."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

DEFAULT_FPS = Fraction(25)
MAX_FAILURES = 64
"""Number of damaged packets after which decoding stops."""
MAX_FPS = 1000
"""Largest plausible number of frames per second; headers that state more are ignored."""
GIF = "gif"
"""FFmpeg's name of the format whose frames state how long each of them is shown."""
_LATEST = 10**9  # seconds that a part may start at: 31 years, which FFmpeg can count in 64 bits
_TEXT = "tty"  # FFmpeg's name of the format that draws the lines of a text file as frames
_PLAYLISTS = (b"#EXTM3U", b"ffconcat version")
_OPTIONS = {"protocol_whitelist": "none"}
"""FFmpeg reads the file that Python opened, and opens no other file and no network connection for it."""
_METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
"""Metadata that are not UTF-8 do not matter. PyAV 19 has no argument for them, and replaces what it cannot decode."""

# PyAV's log handler takes the GIL: a decoding thread that logs while its decoder is freed would wait forever.
av.logging.set_level(None)
# A forked process has none of the decoder threads that freeing a decoder waits for, so its garbage collector must not
# free those that the parent has left in reference cycles, such as tracebacks.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=gc.freeze)


class VideoError(ValueError):
    """A video cannot be read or written. The message is one line."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video file.

    Attributes:
        path: Path of the file.
        width, height: Size of a frame as displayed, in pixels. Non-square pixels are not stretched.
        fps: Average number of frames per second.
        frames: Estimated number of frames; None if the file does not state it.
        duration: Length in seconds; None if the file does not state it.
        codec: FFmpeg's name of the codec.
        pixel_format: FFmpeg's name of the pixel format.
        bit_depth: Bits of the first component of a pixel.
        rotation: Counterclockwise rotation of frames for display, in degrees: 0, 90, 180 or 270.
        audio: Whether the file has sound.
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    frames: int | None
    duration: float | None
    codec: str
    pixel_format: str
    bit_depth: int
    rotation: int
    audio: bool


def is_url(name: str | Path) -> bool:
    """Return whether a name is a URL, such as `https://host/clip.mp4`. Drives of Windows, such as `C:`, are none."""
    return isinstance(name, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name) is not None


def check_video_file(path: str | Path) -> None:
    """Raise a VideoError unless a path names a non-empty file, which is not opened."""
    name, path = str(path), Path(path)
    if is_url(name):
        raise VideoError(f"{name}: a URL, expected the path of a video file; download the video")
    if name == "-":
        raise VideoError("-: standard input is not supported here; give the path of a video file")
    if path.is_dir():
        raise VideoError(
            f"{path}: a folder, expected a video file; 'adaptok encode' and 'adaptok tokenize' take folders"
        )
    if not path.exists():
        raise VideoError(f"{path}: no such file; expected a video file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: an empty file, expected a video file")


def check_part(name: str | Path, start: float, stop: float | None, fps: Fraction | float | None) -> None:
    """Raise a VideoError unless a part of a video, in seconds, and a frame rate are valid. `name` is that of the video
    in the message."""
    if not 0 <= start <= _LATEST or (stop is not None and not start < stop < math.inf):
        raise VideoError(
            f"{name}: start {start} and stop {stop} seconds, expected a start of at least 0 and a later stop"
        )
    if fps is not None and not 0 < fps <= MAX_FPS:
        raise VideoError(f"{name}: {fps} frames per second, expected more than 0 and at most {MAX_FPS}")


@contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Open a video file. Its name is never taken for a URL, and it cannot make FFmpeg open anything else.

    Raises:
        VideoError: FFmpeg cannot read the file as a video.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe would wait for a writer
            raise VideoError(f"{path}: a pipe, a socket or a device, expected a video file")
        file = path.open("rb", buffering=0)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        try:
            container = av.open(file, "r", options=_OPTIONS, **_METADATA)
        except av.FFmpegError as error:
            kind = _kind_of(path) or f"not a video file that FFmpeg can read ({reason_of(error)})"
            raise VideoError(f"{path}: {kind}, expected a video file") from None
        except OSError as error:
            raise VideoError(f"{path}: cannot be read ({error.strerror})") from None
        with container:
            if container.format.name == _TEXT:
                raise VideoError(f"{path}: a text file, expected a video file")
            yield container


def _kind_of(path: Path) -> str | None:
    """Describe a file that is no video; None if its content is unknown."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(_PLAYLISTS):
        return "a playlist, which refers to other files"
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < 512 else "ignore")
    except UnicodeDecodeError:
        return None
    return "a text file" if all(letter.isprintable() or letter.isspace() for letter in text) else None


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    streams = container.streams.video
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "an empty container"
        raise VideoError(f"{path}: no video stream (only {kinds}), expected a video file")
    if streams[0].codec_context is None:
        raise VideoError(f"{path}: FFmpeg has no decoder for its video, expected another codec; convert it to H.264")
    streams[0].thread_type = "AUTO"
    return streams[0]


def describe(path: Path, container: InputContainer, stream: VideoStream, first: VideoFrame) -> VideoInfo:
    rates = (stream.average_rate, stream.guessed_rate, stream.base_rate)
    fps = next((Fraction(rate) for rate in rates if rate and 0 < rate <= MAX_FPS), DEFAULT_FPS)
    duration = None
    if stream.duration is not None and stream.time_base is not None:
        duration = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration = container.duration / av.time_base
    frames = stream.frames or (round(duration * fps) if duration else None)
    rotation = round(first.rotation / 90) % 4 * 90
    width, height = first.width, first.height
    if rotation in (90, 270):
        width, height = height, width
    return VideoInfo(
        path=path,
        width=width,
        height=height,
        fps=fps,
        frames=frames,
        duration=duration,
        codec=stream.codec_context.name,
        pixel_format=first.format.name,
        bit_depth=first.format.components[0].bits,
        rotation=rotation,
        audio=bool(container.streams.audio),
    )


def reason_of(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split()).lower()


def decoded_frames(container: InputContainer, stream: VideoStream, note: Callable[[str], None]) -> Iterator[VideoFrame]:
    """Yield decoded frames from the container's position to its end, or to damage that cannot be skipped.

    `note` is called with a description of each damaged packet.
    """
    failures = 0
    packets = container.demux(stream)
    while failures <= MAX_FAILURES:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            yield from packet.decode()
        except av.EOFError:
            return
        except (av.FFmpegError, ValueError) as error:
            note(reason_of(error))
            failures += 1
    if failures:  # errors may leave frames in the decoder
        with contextlib.suppress(av.FFmpegError, ValueError):
            yield from stream.decode(None)
