"""Reading video files frame by frame, at a constant frame rate."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from adaptok.video.container import (
    GIF,
    VideoError,
    VideoInfo,
    check_part,
    check_video_file,
    decoded_frames,
    describe,
    open_container,
    reason_of,
    video_stream,
)
from adaptok.video.conversion import to_rgb
from adaptok.video.limits import DEFAULT_LIMITS, Limits, limit_stream
from adaptok.video.timing import on_grid

Frame = NDArray[np.uint8]


def probe(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> VideoInfo:
    """Return the properties of a video file. The first frame is decoded to check that the file is readable.

    Raises:
        VideoError: The file is missing, empty, a folder, not a video, damaged from its beginning, or its frames exceed
            the limits.
    """
    with VideoReader(path, limits=limits) as reader:
        return reader.info


def read_video(
    path: str | Path, *, start: float = 0.0, stop: float | None = None, fps: Fraction | float | None = None
) -> tuple[NDArray[np.uint8], Fraction]:
    """Read all frames, uint8 `[T, H, W, 3]`, and the frames per second. Arguments and errors as for `VideoReader`."""
    with VideoReader(path, start=start, stop=stop, fps=fps) as reader:
        return np.stack(list(reader)), reader.fps


class VideoReader:
    """Iterator over the frames of a video file: RGB, uint8 `[H, W, 3]`, as displayed.

    Frames have a constant rate. At the file's own rate, each decoded frame is returned once, with its time rounded by
    up to half a period. Where the file has longer pauses, and at other rates, each instant shows the last frame before
    it. The own rate of a GIF is one frame per shortest delay, so that no frame is lost and all are shown for as long as
    their delays say. Transparency is dropped. Frames are scaled to the size of the first frame. If the file is damaged
    after the first frame, the video ends there, and `warning` is set. It also says how many frames are left out because
    their times run backwards, or follow each other too closely for the file's own rate.

    Args:
        path: Path of the file.
        start, stop: Part of the video, in seconds from the first frame. `stop` is exclusive.
        fps: Frames per second; None uses the average rate of the file.
        short_side: Scale frames down, averaging areas, so that their shorter side has at most this many pixels.
        threads: Number of decoder threads; None lets FFmpeg decide. With one thread, a damaged file gives the same
            frames on every machine.
        limits: Largest frames and longest part that are read.

    Attributes:
        info: Properties of the file.
        fps: Frames per second of the returned frames.
        count: Number of frames returned so far.
        done: Whether all frames have been returned.
        warning: Description of damage, set when all frames have been read.

    Raises:
        VideoError: The file cannot be read, no frame lies between `start` and `stop`, or a limit is exceeded.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start: float = 0.0,
        stop: float | None = None,
        fps: Fraction | float | None = None,
        short_side: int | None = None,
        threads: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        check_video_file(path)
        self.path = Path(path)
        check_part(path, start, stop, fps)
        self.count = 0
        self.done = False
        self.warning: str | None = None
        self._failures: list[str] = []  # errors of FFmpeg
        self._decoded_count = self._lost = 0
        self._limits = limits
        self._size: tuple[int, int] | None = None  # of the first frame, before rotation
        self._short_side = short_side
        with ExitStack() as stack:
            self._container = stack.enter_context(open_container(self.path))
            self._stream = video_stream(self._container, self.path)
            limit_stream(self._stream, self.path, limits)
            if threads is not None:
                self._stream.codec_context.thread_count = threads
            self._decoded = self._decode()
            first = self._first_frame()
            self.info = describe(self.path, self._container, self._stream, first)
            self._close = stack.pop_all()
        self._last_duration = 1 / self.info.fps
        if self._container.format.name == GIF:
            self._use_delays()
        self.fps = self.info.fps if fps is None else Fraction(fps).limit_denominator(100_000)
        self._each_once = fps is None and self._container.format.name != GIF
        self._start, self._stop = Fraction(start), None if stop is None else Fraction(stop)
        self._origin = self._time(first)
        self._frames = self._on_grid(first)

    @property
    def expected(self) -> int | None:
        """Expected number of frames; None if the file does not state it."""
        if self.info.frames is None:
            return None
        seconds = self.info.frames / self.info.fps
        stop = seconds if self._stop is None else min(self._stop, seconds)
        return max(1, round((stop - self._start) * self.fps))

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._close.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self.count == 0:
            self._limits.check_duration(self.path, (self.expected or 0) / self.fps)
        frame = next(self._frames, None)
        if frame is None:
            self.done = True
            self._note_losses()
            if self.count == 0:
                length = "" if self.info.duration is None else f", which has {self.info.duration:.2f} seconds"
                span = describe_span(self._start, self._stop)
                raise VideoError(f"{self.path}: no frame {span}; expected a part of the video{length}")
            raise StopIteration
        self.count += 1
        self._limits.check_duration(self.path, self.count / self.fps)
        return frame

    def _first_frame(self) -> VideoFrame:
        reason = ""
        try:
            first = next(self._decoded, None)
        except (av.FFmpegError, ValueError) as error:
            first, reason = None, f" ({reason_of(error)})"
        if first is None:
            raise VideoError(
                f"{self.path}: no frame can be decoded{reason or self._damage()}; expected an undamaged video file with"
                f" frames of at most {self._limits.max_pixels} pixels"
            )
        return first

    def _damage(self) -> str:
        return f" ({self._failures[0]})" if self._failures else ""

    def _decode(self) -> Iterator[VideoFrame]:
        return decoded_frames(self._container, self._stream, self._failures.append)

    def _time(self, frame: VideoFrame) -> Fraction | None:
        if frame.pts is None or frame.time_base is None:
            return None
        return Fraction(frame.pts) * frame.time_base

    def _use_delays(self) -> None:
        """Take rate and duration of a GIF from the delays of its frames."""
        with open_container(self.path) as container:
            packets = container.demux(video_stream(container, self.path))
            durations = [packet.duration * packet.time_base for packet in packets if packet.duration]
        if durations:
            fps = 1 / min(durations)
            seconds = sum(durations)
            self._last_duration = durations[-1]
            self.info = replace(self.info, fps=fps, frames=math.ceil(seconds * fps), duration=float(seconds))

    def _seek(self) -> VideoFrame | None:
        """Seek to the last key frame before `start`, and return the first frame from there."""
        base = self._stream.time_base
        assert base is not None
        assert self._origin is not None
        self._container.seek(int((self._origin + self._start) / base), stream=self._stream)
        self._decoded = self._decode()
        return next(self._decoded, None)

    def _timed(self, first: VideoFrame) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Yield decoded frames with their times, from the key frame before `start` on, and note damage at the end."""
        frame: VideoFrame | None = first
        if self._start > 0 and self._origin is not None and self._stream.time_base is not None:
            with contextlib.suppress(av.FFmpegError):  # files without seeking are decoded from the beginning
                frame = self._seek() or first
        time = -1 / self.info.fps
        while frame is not None:
            stamp = self._time(frame)
            time = time + 1 / self.info.fps if stamp is None or self._origin is None else stamp - self._origin
            self._decoded_count += 1
            yield time, frame
            frame = next(self._decoded, None)
        self._note_damage()

    def _on_grid(self, first: VideoFrame) -> Iterator[Frame]:
        """Yield the image that is shown at each instant `start + i / fps`."""
        shown, image = None, np.empty((0, 0, 3), np.uint8)
        for frame in on_grid(
            self._timed(first),
            self.fps,
            self._last_duration,
            start=self._start,
            stop=self._stop,
            each_once=self._each_once,
            name=self.path,
            on_loss=self._count_loss,
        ):
            if frame is not shown:
                shown, image = frame, self._to_rgb(frame)
            yield image

    def _to_rgb(self, frame: VideoFrame) -> Frame:
        """Convert a frame to RGB as displayed, at the size of the first frame."""
        self._size = self._size or scaled(frame.width, frame.height, self._short_side)
        how = Interpolation.BICUBIC if self._short_side is None else Interpolation.AREA
        width, height = self._size
        rgb = to_rgb(frame, width=width, height=height, interpolation=how)
        return np.ascontiguousarray(np.rot90(rgb, self.info.rotation // 90))

    def _count_loss(self) -> None:
        self._lost += 1

    def _note_damage(self) -> None:
        promised, decoded = self._stream.frames, self._decoded_count
        # others, such as AVI, may count a last packet without a frame
        exact = self._container.format.name.startswith("mov,")
        if self._failures or (self._start == 0 and decoded < promised - (0 if exact else 1)):
            count = f"{decoded} of {promised}" if promised else f"{decoded}"
            self.warning = (
                f"{self.path}: damaged or cut off{self._damage()}; {count} frames could be decoded and are used"
            )

    def _note_losses(self) -> None:
        if self._lost:
            before = f"{self.path}: " if self.warning is None else f"{self.warning}, except that "
            self.warning = (
                f"{before}{self._lost} of {self._decoded_count} frames are left out, as their times are damaged or too"
                f" close for {float(self.fps):g} frames per second; --fps sets another rate"
            )


def scaled(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Return width and height, scaled down so that the shorter side is at most `short_side`."""
    if short_side is None or min(width, height) <= short_side:
        return width, height
    scale = short_side / min(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def describe_span(start: float | Fraction, stop: float | Fraction | None) -> str:
    """Describe a part of a video in words."""
    first = f"{float(start):g}"
    return f"from {first} seconds on" if stop is None else f"between {first} and {float(stop):g} seconds"
