"""Writing H.264 videos that browsers can play."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.logging
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import NDArray

from adaptok.utils.files import WriteError, replacing
from adaptok.video.container import VideoError
from adaptok.video.conversion import reformat
from adaptok.video.sound import Sound

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
MIN_SIDE = 16
"""Smallest side that the encoder accepts, in pixels."""
_BT601 = 6  # code of ITU-R BT.601 in FFmpeg


class VideoWriter:
    """Context manager that writes frames to a video file: H.264, yuv420p, playable while it loads.

    Odd sizes are extended to even ones, and sides under 16 pixels to 16, by repeating the last column or row. The file
    appears under its name when the `with` block ends; after an error, nothing remains.

    Args:
        path: Path with the suffix .mp4, .m4v, .mov or .mkv.
        fps: Frames per second.
        crf: Constant rate factor of H.264: 0 is lossless, 18 is visually lossless, 23 gives small files.
        key_frames: Largest distance between key frames, to which players can jump; None lets the encoder decide.
        threads: Number of encoder threads.
        sound: Sound to write beside the frames, up to the end of the last one. It is closed with the file.

    Raises:
        VideoError: The suffix is not supported, or the folder cannot be written to.
        ValueError: `path` is something else than a file.
        WriteError: The disk is full. It is also raised at the end of the `with` block.
    """

    def __init__(
        self,
        path: str | Path,
        fps: Fraction | float,
        *,
        crf: int = 16,
        key_frames: int | None = None,
        threads: int = 2,
        sound: Sound | None = None,
    ) -> None:
        self.path, self.count, self._sound = Path(path), 0, sound
        # x264's macroblock tree is not deterministic for some frame sizes, such as 48 x 48
        self._options: dict[str, object] = {"crf": str(crf), "preset": "medium", "threads": str(threads)}
        self._options["x264-params"] = "mbtree=0"
        if key_frames is not None:
            self._options["g"] = str(key_frames)
        self.fps = Fraction(fps).limit_denominator(100_000)
        if self.path.suffix.lower() not in SUFFIXES:
            raise VideoError(f"{path}: not a video name, expected a suffix of {', '.join(SUFFIXES)}")
        self._size: tuple[int, ...] | None = None
        self._stream: VideoStream | None = None
        options = {"movflags": "+faststart"} if self.path.suffix.lower() != ".mkv" else {}
        with ExitStack() as stack:
            try:
                temporary = stack.enter_context(replacing(self.path))
            except WriteError:
                raise
            except OSError as error:
                raise VideoError(f"{path}: cannot be written ({error.strerror}); choose another folder") from None
            # a name such as "http:/x.mp4" is no address
            self._container = av.open(f"file:{temporary}", "w", options=options)
            stack.push(self._close)
            self._exit = stack.pop_all()

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Write frames, uint8 `[H, W, 3]` or `[T, H, W, 3]`, all of the same size.

        Raises:
            ValueError: The shape or type is wrong, or the size differs from that of earlier frames.
        """
        frames = frames[None] if frames.ndim == 3 else frames
        if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or min(frames.shape[1:3]) < 1:
            raise ValueError(f"frames of shape {frames.shape} and type {frames.dtype}, expected uint8 [T, H, W, 3]")
        if self._size is None:
            self._size = frames.shape[1:]
        if frames.shape[1:] != self._size:
            raise ValueError(f"frames of shape {frames.shape[1:]}, expected {self._size} as before")
        for frame in frames:
            self._encode(np.ascontiguousarray(_pad(frame)))

    def _encode(self, frame: NDArray[np.uint8]) -> None:
        if self._stream is None:
            stream = self._container.add_stream("libx264", rate=self.fps)
            stream.width, stream.height, stream.pix_fmt = frame.shape[1], frame.shape[0], "yuv420p"
            stream.options = self._options
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = _BT601
            context.color_range = ColorRange.MPEG
            try:
                context.open()
            except av.FFmpegError:
                raise VideoError(
                    f"{self.path}: the H.264 encoder accepts no frames of {stream.width}x{stream.height} pixels at"
                    f" {self.fps} frames per second; choose a smaller size or another rate"
                ) from None
            self._stream = stream
            if self._sound is not None:
                self._sound.attach(self._container)
        image = reformat(
            VideoFrame.from_ndarray(frame, format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
        )
        image.pts, image.time_base = self.count, 1 / self.fps
        self.count += 1
        for packet in self._stream.encode(image):
            self._container.mux(packet)
        self._write_sound()

    def _write_sound(self) -> None:
        if self._sound is not None:
            self._sound.write(self._container, self.count / self.fps)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.__exit__(kind, error, trace)

    def _close(self, kind: type[BaseException] | None, *error: object) -> None:
        """Complete the temporary file, which then replaces `path` unless there was an error."""
        try:
            if kind is None and self._stream is None:
                raise VideoError(f"{self.path}: no frames to write")
            if kind is None and self._stream is not None:
                for packet in self._stream.encode():
                    self._container.mux(packet)
            self._container.close()
        finally:
            if self._sound is not None:
                self._sound.close()


def _pad(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = (max(MIN_SIDE, side + side % 2) - side for side in frame.shape[:2])
    return np.pad(frame, ((0, height), (0, width), (0, 0)), mode="edge") if height or width else frame
