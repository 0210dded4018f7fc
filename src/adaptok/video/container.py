"""Video files as FFmpeg opens them: checks, properties, and the decoded frames of a stream."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

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

# PyAV's log handler takes the GIL: a decoding thread that logs while its decoder is freed would wait forever.
av.logging.set_level(None)


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


def check_video_file(path: str | Path) -> None:
    """Raise a VideoError unless a path names a non-empty file, which is not opened."""
    name, path = str(path), Path(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", name):
        raise VideoError(f"{name}: URLs are not supported; download the video and give the path of the file")
    if name == "-":
        raise VideoError("-: standard input is not supported; give the path of a video file")
    if path.is_dir():
        raise VideoError(f"{path}: a folder, expected a video file; 'adaptok tokenize' encodes all videos of a folder")
    if not path.exists():
        raise VideoError(f"{path}: no such file; expected a video file")
    if path.stat().st_size == 0:
        raise VideoError(f"{path}: an empty file, expected a video file")


def open_container(path: Path) -> InputContainer:
    try:
        return av.open(str(path))
    except av.FFmpegError as error:
        raise VideoError(f"{path}: not a video file that FFmpeg can read ({reason_of(error)})") from None
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from None


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    streams = container.streams.video
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "an empty container"
        raise VideoError(f"{path}: no video stream (only {kinds}), expected a video file")
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
