"""Reading video files frame by frame, on a constant frame rate."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream
from numpy.typing import NDArray

Frame = NDArray[np.uint8]

DEFAULT_FPS = Fraction(25)
MOST_FAILURES = 64
"""Damaged packets after which a video is given up."""
MAX_FPS = 1000
"""Frames per second above which a header is not believed."""

# Its handler takes the interpreter's lock: a decoding thread that logs while its decoder is freed would wait for ever.
av.logging.set_level(None)


class VideoError(ValueError):
    """A video that cannot be read or written, told in one line."""


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of its video.

    Attributes:
        path: of the file.
        width, height: of a frame as it is shown, in pixels; non-square pixels are not stretched.
        fps: frames per second, on average.
        frames: how many to expect; None where the file does not say. An estimate.
        duration: in seconds; None where the file does not say.
        codec: FFmpeg's name of it.
        pixel_format: FFmpeg's name of it.
        bit_depth: bits of the first component.
        rotation: degrees that frames are turned counterclockwise before they are shown: 0, 90, 180 or 270.
        audio: whether there is sound; it is not read.
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


def probe(path: str | Path) -> VideoInfo:
    """What is in a video file; its first frame is decoded, to see that it can be.

    Raises:
        VideoError: the file is missing, empty, a folder, not a video, without pictures, or damaged from its beginning.
    """
    with VideoReader(path) as reader:
        return reader.info


def read_video(
    path: str | Path, *, start: float = 0.0, stop: float | None = None, fps: Fraction | float | None = None
) -> tuple[NDArray[np.uint8], Fraction]:
    """All frames, uint8 `[T, H, W, 3]`, and frames per second; arguments and errors as for `VideoReader`."""
    with VideoReader(path, start=start, stop=stop, fps=fps) as reader:
        return np.stack(list(reader)), reader.fps


class VideoReader:
    """Iterator over the frames of a video file: RGB, uint8 `[H, W, 3]`, as they are shown.

    Frames come at a constant rate. At the file's own, each decoded frame comes once, up to rounding of its time by
    half a period; where a file has longer pauses, or another rate is asked for, each instant shows the last frame
    before it. Transparency is dropped; a frame of another size than the first is scaled to that. Damage after the first
    frame ends the video there, and sets `warning`.

    Args:
        path: of the file.
        start, stop: seconds, from the first frame; `stop` is exclusive.
        fps: frames per second; the file's average if None.
        short_side: scale frames down, averaging areas, so that their shorter side has at most so many pixels.
        threads: of the decoder; None takes as many as it likes. With one, what comes of a damaged file is the same on
            every machine.

    Attributes:
        info: what the file says.
        fps: frames per second of what is given.
        count: frames given so far.
        done: whether these are all.
        warning: what was wrong with the file, once it is read.

    Raises:
        VideoError: there is no video that can be read, or no frame between `start` and `stop`.
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
    ) -> None:
        self.path = Path(path)
        if not (math.isfinite(start) and start >= 0) or (stop is not None and not stop > start):
            raise VideoError(f"{path}: seconds {start} to {stop}, expected 0 or more, and the end after the start")
        if fps is not None and not 0 < fps <= MAX_FPS:
            raise VideoError(f"{path}: fps {fps}, expected more than 0 and up to {MAX_FPS} frames per second")
        self.count = 0
        self.done = False
        self.warning: str | None = None
        self._failure = ""  # the first that FFmpeg complained of
        self._size: tuple[int, int] | None = None  # of the first frame, before it is turned
        self._short_side = short_side
        self._container = _open(self.path)
        try:
            self._stream = _video_stream(self._container, self.path)
            if threads is not None:
                self._stream.codec_context.thread_count = threads
            self._decoded = self._decode()
            first = self._first_frame()
            self.info = _describe(self.path, self._container, self._stream, first)
        except BaseException:
            self._container.close()
            raise
        self.fps = self.info.fps if fps is None else Fraction(fps).limit_denominator(100_000)
        self._own_fps = fps is None
        self._start, self._stop = start, stop
        self._origin = self._time(first)
        self._frames = self._on_grid(first)

    @property
    def expected(self) -> int | None:
        """How many frames there should be, where the file says it."""
        if self.info.frames is None:
            return None
        seconds = float(self.info.frames / self.info.fps)
        stop = seconds if self._stop is None else min(self._stop, seconds)
        return max(1, round((stop - self._start) * self.fps))

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        frame = next(self._frames, None)
        if frame is None:
            self.done = True
            if self.count == 0:
                raise VideoError(f"{self.path}: no frame between {self._start} and {self._stop} seconds")
            raise StopIteration
        self.count += 1
        return frame

    def _first_frame(self) -> VideoFrame:
        reason = ""
        try:
            first = next(self._decoded, None)
        except (av.FFmpegError, ValueError) as error:
            first, reason = None, f" ({_reason(error)})"
        if first is None:
            raise VideoError(
                f"{self.path}: no frame can be decoded{reason or self._damage()}; expected a whole video file"
            )
        return first

    def _damage(self) -> str:
        return f" ({self._failure})" if self._failure else ""

    def _decode(self) -> Iterator[VideoFrame]:
        return decoded_frames(self._container, self._stream, self._note)

    def _note(self, reason: str) -> None:
        self._failure = self._failure or reason

    def _time(self, frame: VideoFrame) -> Fraction | None:
        if frame.pts is None or frame.time_base is None:
            return None
        return Fraction(frame.pts) * frame.time_base

    def _seek(self) -> VideoFrame | None:
        """Go to the last key frame before `start` and return the first frame from there."""
        base = self._stream.time_base
        assert base is not None
        assert self._origin is not None
        self._container.seek(int((self._origin + Fraction(self._start)) / base), stream=self._stream)
        self._decoded = self._decode()
        return next(self._decoded, None)

    def _placed(self, first: VideoFrame) -> Iterator[tuple[VideoFrame, int, int]]:
        """Decoded frames, the instant, counted from `start`, that each is shown from, and the one that it would be
        shown up to if it were the last."""
        frame: VideoFrame | None = first
        if self._start > 0 and self._origin is not None and self._stream.time_base is not None:
            with contextlib.suppress(av.FFmpegError):  # what cannot seek is decoded up to there
                frame = self._seek() or first
        time = -1 / self.info.fps
        place: Fraction | None = None
        index = 0
        while frame is not None:
            stamp = self._time(frame)
            time = time + 1 / self.info.fps if stamp is None or self._origin is None else stamp - self._origin
            before, place = place, (time - Fraction(self._start)) * self.fps
            if not self._own_fps:
                index = math.ceil(place - _EARLY)
            elif before is not None and _steady(place - before) and abs(place - index - 1) < 1:
                index += 1  # the usual step, whatever the rounding of times
            else:
                index = math.floor(place + Fraction(1, 2))
            end = index + 1 if self._own_fps else math.ceil(place + self.fps / self.info.fps - _EARLY)
            yield frame, index, end
            frame = next(self._decoded, None)

    def _on_grid(self, first: VideoFrame) -> Iterator[Frame]:
        """Frames at the instants `start + i / fps`: each is shown until the next one."""
        end = math.inf
        if self._stop is not None:
            end = math.ceil((Fraction(self._stop) - Fraction(self._start)) * self.fps - _EARLY)
        slot, decoded, last = 0, 0, 0
        shown: VideoFrame | None = None
        for frame, index, until in self._placed(first):
            decoded += 1
            if shown is not None and index > slot:
                picture = self._picture(shown)
                while slot < min(index, end):
                    yield picture
                    slot += 1
            if slot >= end:
                return
            shown, last = frame, until
        if shown is not None:
            picture = self._picture(shown)
            while slot < min(last, end):
                yield picture
                slot += 1
        self._note_damage(decoded)

    def _picture(self, frame: VideoFrame) -> Frame:
        """RGB, turned as it is shown, at the size of the first frame."""
        self._size = self._size or scaled(frame.width, frame.height, self._short_side)
        how = Interpolation.BICUBIC if self._short_side is None else Interpolation.AREA
        width, height = self._size
        rgb = np.asarray(frame.to_ndarray(format="rgb24", width=width, height=height, interpolation=how), np.uint8)
        turns = self.info.rotation // 90
        rgb = np.rot90(rgb, turns) if turns else rgb
        return np.ascontiguousarray(rgb)

    def _note_damage(self, decoded: int) -> None:
        promised = self._stream.frames
        short = self._start == 0 and decoded < promised - 1
        if self._failure or short:
            of = f" of {promised}" if promised else ""
            reason = f" ({self._failure})" if self._failure else ""
            self.warning = (
                f"{self.path}: damaged or cut off{reason}; {decoded}{of} frames could be decoded and are used"
            )


def scaled(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height, scaled down so that the shorter is at most `short_side`."""
    if short_side is None or min(width, height) <= short_side:
        return width, height
    scale = short_side / min(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


_EARLY = Fraction(1, 1000)
"""Part of a period by which a frame may come late and still be on time."""


def _steady(step: Fraction) -> bool:
    """Whether a step between frames is one period but for rounding."""
    return Fraction(1, 2) < step < Fraction(3, 2)


def decoded_frames(container: InputContainer, stream: VideoStream, note: Callable[[str], None]) -> Iterator[VideoFrame]:
    """Decoded frames from where the container stands up to its end, or to damage that cannot be passed.

    Args:
        note: called with what was wrong with a packet that gave nothing.
    """
    failures = 0
    packets = container.demux(stream)
    while failures <= MOST_FAILURES:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            yield from packet.decode()
        except av.EOFError:
            return
        except (av.FFmpegError, ValueError) as error:
            note(_reason(error))
            failures += 1
    if failures:  # the end was not reached in order: what the decoder still holds
        with contextlib.suppress(av.FFmpegError, ValueError):
            yield from stream.decode(None)


def _open(path: Path) -> InputContainer:
    if path.is_dir():
        raise VideoError(f"{path}: a folder, expected a video file")
    if not path.exists():
        raise VideoError(f"{path}: no such file; expected a video file")
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: an empty file, expected a video file")
        return av.open(str(path))
    except av.FFmpegError as error:
        raise VideoError(f"{path}: not a video file that FFmpeg can read ({_reason(error)})") from None
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror})") from None


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    streams = container.streams.video
    if not streams:
        found = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise VideoError(f"{path}: no pictures in it (found: {found}), expected a video file")
    streams[0].thread_type = "AUTO"
    return streams[0]


def _describe(path: Path, container: InputContainer, stream: VideoStream, first: VideoFrame) -> VideoInfo:
    fps = _frame_rate(stream)
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


def _frame_rate(stream: VideoStream) -> Fraction:
    for fps in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if fps and 0 < fps <= MAX_FPS:
            return Fraction(fps)
    return DEFAULT_FPS


def _reason(error: Exception) -> str:
    return " ".join((getattr(error, "strerror", None) or str(error)).split()).lower()
