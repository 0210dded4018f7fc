"""Distinguishable frames, and video files with unusual properties."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame


def numbered_frames(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return smooth frames uint8 `[count, height, width, 3]`, whose mean brightness grows with their index."""
    y, x = np.mgrid[0:height, 0:width]
    shade = np.stack([x * 60 / width, y * 60 / height, (x + y) * 30 / (height + width)], -1)
    return np.stack([(shade + 10 + 4 * i).astype(np.uint8) for i in range(count)])


def write_raw(path, frames, *, pix_fmt="yuv420p", codec="libx264", stamps=None, rate=30, options=None):
    """Write a file with any codec, pixel format and time stamps (in milliseconds)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        stream.options = options or {}
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, frame in enumerate(frames):
            picture = VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = index, Fraction(1, rate)
            if stamps is not None:
                picture.pts, picture.time_base = stamps[index], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def numbers(frames: np.ndarray, reference: np.ndarray) -> list[int]:
    """Return the indices of the reference frames that are closest in mean brightness."""
    means = reference.mean((1, 2, 3))
    return [int(np.abs(means - frame.mean()).argmin()) for frame in frames]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean absolute difference."""
    return float(np.abs(a.astype(float) - b).mean())


def rotate_display(path, degrees: int) -> None:
    """Rotate the display of an MP4 clockwise, in the matrix of its only track."""
    data = bytearray(path.read_bytes())
    place = data.rindex(b"tkhd") + 4 + 40  # version 0: the matrix lies 40 bytes into the box
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    for index, value in enumerate((cos, sin, 0, -sin, cos)):
        data[place + 4 * index : place + 4 * index + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(bytes(data))


def y4m(frames: np.ndarray, color: str = "420jpeg", pix_fmt: str = "yuv420p", extra: str = "") -> bytes:
    """Return frames as y4m at 30000/1001 per second."""
    height, width = frames.shape[1:3]
    parts = [f"YUV4MPEG2 W{width} H{height} F30000:1001 Ip A1:1 C{color}{extra}\n".encode()]
    for frame in frames:
        picture = VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)
        parts.append(b"FRAME\n")
        for plane in picture.planes:
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            parts.append(rows[: plane.height, : plane.width * (2 if "10" in pix_fmt else 1)].tobytes())
    return b"".join(parts)
