"""Uncompressed video from a stream that is read once, such as standard input: y4m, or raw RGB.

Only one frame at a time is held in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from numpy.typing import NDArray

from adaptok.config.choices import RawFormat
from adaptok.video.container import MAX_FPS, VideoError
from adaptok.video.conversion import to_rgb
from adaptok.video.limits import DEFAULT_LIMITS, Limits

Frame = NDArray[np.uint8]

MAX_SIDE = 16384
"""Largest width and height of a frame, in pixels."""
MAX_LINE = 1024
"""Largest number of bytes of a line of text in y4m."""
_MAGIC = b"YUV4MPEG2"
_MARKER = b"FRAME"
_DEPTHS = (9, 10, 12, 14, 16)
_PIXEL_FORMATS = {
    "420": "yuv420p",
    "420jpeg": "yuv420p",
    "420mpeg2": "yuv420p",
    "420paldv": "yuv420p",
    "411": "yuv411p",
    "422": "yuv422p",
    "444": "yuv444p",
    "mono": "gray",
    **{f"{chroma}p{bits}": f"yuv{chroma}p{bits}le" for chroma in ("420", "422", "444") for bits in _DEPTHS},
}
"""FFmpeg's name of the pixel format for each color space of y4m."""


@dataclass(frozen=True)
class RawVideo:
    """Properties of an uncompressed video.

    Attributes:
        width, height: Size of a frame, in pixels.
        fps: Frames per second; None if the stream does not state them.
        pixel_format: FFmpeg's name of the pixel format.
        full_range: Whether values of YUV use all of their range; None if it is not stated.
    """

    width: int
    height: int
    fps: Fraction | None
    pixel_format: str
    full_range: bool | None = None

    def check(self, name: str, limits: Limits) -> None:
        """Raise a VideoError if the size or the rate is out of range."""
        if not (1 <= self.width <= MAX_SIDE and 1 <= self.height <= MAX_SIDE):
            raise VideoError(f"{name}: {self.width}x{self.height} pixels, expected 1 to {MAX_SIDE} on each side")
        limits.check_size(name, self.width, self.height)
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise VideoError(f"{name}: {self.fps} frames per second, expected more than 0 and at most {MAX_FPS}")


class RawReader:
    """Iterator over the frames of an uncompressed stream: RGB, uint8 `[H, W, 3]`.

    If the stream ends inside a frame after the first one, or is damaged there, the video ends, and `warning` is set.

    Args:
        file: Binary stream, which need not be seekable.
        format: "y4m", whose header states size, rate and pixel format; or "rgb24", frames of 3 bytes per pixel, row by
            row.
        size: Width and height of frames in the format "rgb24".
        name: Name of the stream in messages.
        limits: Largest frames that are read.

    Attributes:
        video: Properties of the stream. `fps` is None in the format "rgb24".
        warning: Description of damage, set when it has been met.

    Raises:
        VideoError: There is no whole frame, or the header is damaged or of an unsupported kind.
    """

    def __init__(
        self,
        file: BinaryIO,
        format: RawFormat = "y4m",
        *,
        size: tuple[int, int] | None = None,
        name: str = "standard input",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.name = name
        self.warning: str | None = None
        self._file, self._count = file, 0
        self._is_y4m = format == "y4m"
        if self._is_y4m:
            self.video = self._read_header()
        elif size is not None:
            self.video = RawVideo(*size, None, "rgb24")
        else:
            raise VideoError(f"{name}: frames of {format} without a size, expected their width and height")
        self.video.check(name, limits)
        self._picture = VideoFrame(self.video.width, self.video.height, self.video.pixel_format)
        if self.video.full_range is not None:
            self._picture.color_range = ColorRange.JPEG if self.video.full_range else ColorRange.MPEG
        bits = self._picture.format.components[0].bits
        value = self._picture.format.padded_bits_per_pixel // 8 if format == "rgb24" else (bits + 7) // 8
        self._shapes = [(plane.height, plane.width * value) for plane in self._picture.planes]  # rows, bytes of a row
        self._bytes = sum(rows * row for rows, row in self._shapes)
        self._first = self._read_frame()
        if self._first is None:
            raise VideoError(self.warning or f"{name}: no frames, expected a video as {format}")

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        frame, self._first = self._first, None
        if frame is None and self.warning is None:
            frame = self._read_frame()
        if frame is None:
            raise StopIteration
        self._count += 1
        return frame

    def _read_header(self) -> RawVideo:
        line = self._file.readline(MAX_LINE)
        if not line:
            raise VideoError(f"{self.name}: empty, expected a video as y4m")
        if not line.startswith(_MAGIC[: len(line)]):
            raise VideoError(
                f"{self.name}: begins with {line[:12]!r}, expected y4m, which begins with {_MAGIC.decode()}; state the"
                " format of raw frames, or convert the video with: ffmpeg -i VIDEO -f yuv4mpegpipe -"
            )
        if not line.endswith(b"\n"):
            raise VideoError(
                f"{self.name}: the header of y4m is cut off after {len(line)} bytes, expected a whole line"
            )
        return parse_header(line.decode("ascii", "replace"), self.name)

    def _read_frame(self) -> Frame | None:
        """Read a frame; None at the end of the stream, and where a frame is cut off or damaged."""
        if self._is_y4m:
            line = self._file.readline(MAX_LINE)
            if not line:
                return None
            if not line.startswith(_MARKER[: len(line)]):
                return self._stop(f"is damaged, with {line[:12]!r} instead of {_MARKER.decode()}")
            if not line.endswith(b"\n"):
                return self._stop("ends inside the line that begins it")
        data = self._read(self._bytes)
        if len(data) == self._bytes:
            return self._convert(data)
        if data or self._is_y4m:
            return self._stop(f"has {len(data)} bytes, expected {self._bytes}")
        return None

    def _stop(self, problem: str) -> Frame | None:
        """End the video with a warning."""
        size = f"{self.video.width}x{self.video.height}"
        self.warning = (
            f"{self.name}: frame {self._count + 1} of {size} pixels {problem}; check the sender and the size; the"
            f" {self._count} frames before it are used"
        )
        return None

    def _read(self, size: int) -> bytes:
        """Read this many bytes, and fewer only at the end of the stream."""
        data = self._file.read(size)
        while len(data) < size and (more := self._file.read(size - len(data))):  # pipes may return less at a time
            data += more
        return data

    def _convert(self, data: bytes) -> Frame:
        if not self._is_y4m:
            return np.frombuffer(data, np.uint8).reshape(self.video.height, self.video.width, 3)
        place = 0
        for plane, (rows, row) in zip(self._picture.planes, self._shapes, strict=True):
            padded = np.zeros((rows, plane.line_size), np.uint8)
            padded[:, :row] = np.frombuffer(data, np.uint8, rows * row, place).reshape(rows, row)
            plane.update(padded.tobytes())
            place += rows * row
        return to_rgb(self._picture, interpolation=Interpolation.BICUBIC)


def parse_header(line: str, name: str = "y4m") -> RawVideo:
    """Parse the first line of y4m. `name` is the name of the stream in messages.

    Raises:
        VideoError: A field is missing or damaged, or the color space is not supported.
    """
    fields: dict[str, str] = {}
    full_range: bool | None = None
    for word in line.split()[1:]:
        if word.upper().startswith("XCOLORRANGE="):
            full_range = word.upper().endswith("=FULL")
        elif word[0] not in fields:
            fields[word[0]] = word[1:]
    try:
        width, height = int(fields["W"]), int(fields["H"])
        numerator, denominator = map(int, fields.get("F", "0:0").split(":"))
    except (KeyError, ValueError):
        raise VideoError(
            f"{name}: y4m with the header {line.strip()!r}, expected one such as 'YUV4MPEG2 W640 H360 F30:1'"
        ) from None
    color = fields.get("C", "420")
    if color not in _PIXEL_FORMATS:
        raise VideoError(
            f"{name}: y4m of the color space {color!r}, expected {', '.join(_PIXEL_FORMATS)}; convert it with: ffmpeg"
            " -i VIDEO -pix_fmt yuv420p -f yuv4mpegpipe -"
        )
    fps = Fraction(numerator, denominator) if numerator and denominator else None
    return RawVideo(width, height, fps, _PIXEL_FORMATS[color], full_range)
