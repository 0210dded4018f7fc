"""Frame sources: the frames of a file, an array or another kind of video, in one form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.choices import RawFormat
from adaptok.video.arrays import ArrayFrames
from adaptok.video.container import VideoError, check_part, is_url
from adaptok.video.decoders import DecoderFrames, FrameDecoder, is_decoder
from adaptok.video.images import FolderFrames, ImageFrames, is_image_list
from adaptok.video.limits import DEFAULT_LIMITS, Limits
from adaptok.video.raw_streams import RawReader
from adaptok.video.reading import VideoReader, describe_span
from adaptok.video.remote import check_url, downloaded
from adaptok.video.timing import on_grid

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_FPS = Fraction(30)
"""Frames per second of frames without a frame rate."""

Frame = NDArray[Any]
"""`[H, W, 3]`, uint8, or float32 in [0, 1]."""


class Frames(Protocol):
    """Sequence of frames, which may be read when they are needed."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Frame: ...


class Damageable(Protocol):
    """Something that notes the damage it has met."""

    warning: str | None


@dataclass
class FrameSource:
    """Frames of one video, to be read once and in order.

    Attributes:
        frames: `[H, W, 3]` each.
        width, height: Size of a frame, in pixels.
        fps: Frames per second.
        total: Expected number of frames; None if unknown.
        warning: Description of damage, set when all frames have been read.
    """

    frames: Iterator[Frame]
    width: int
    height: int
    fps: Fraction
    total: int | None
    reader: Damageable | None = field(default=None, repr=False)

    @property
    def warning(self) -> str | None:
        return None if self.reader is None else self.reader.warning


Video: TypeAlias = Union[str, Path, NDArray[Any], Tensor, "Sequence[Image]", FrameDecoder, FrameSource]


@contextmanager
def open_frames(
    video: Video,
    *,
    start: float = 0.0,
    stop: float | None = None,
    fps: Fraction | float | None = None,
    allow_url: bool = False,
    threads: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[FrameSource]:
    """Open a video.

    Args:
        video: One of

            - the path of a video file or a GIF,
            - the path of a folder with the frames of one video as images, which are taken in natural order,
            - a URL, if `allow_url` is set,
            - an array or tensor, uint8 or float in [0, 1]: frames `[T, H, W, 3]` or `[T, 3, H, W]`, or consecutive
              clips `[B, 3, T, H, W]`,
            - a list of PIL images,
            - a decoder with the interface of torchcodec's `VideoDecoder`,
            - an open source, which is returned as it is.
        start, stop: Part of the video, in seconds.
        fps: Frames per second: the rate to sample a file or a decoder at, or the rate of arrays and images, which is
            30 by default.
        allow_url: Download videos at `http://` and `https://` URLs.
        threads: Number of threads that decode a file; see `VideoReader`.
        limits: Largest frames and longest part of files, folders and URLs that are read.

    Raises:
        VideoError: The video cannot be read, or exceeds the limits.
        ValueError: The shape, type or range of an array is wrong, or no frame lies between `start` and `stop`.
    """
    if isinstance(video, FrameSource):
        yield video
    elif isinstance(video, str) and is_url(video):
        check_url(video, allow_url)
        with downloaded(video) as path, _open_file(path, start, stop, fps, threads, limits) as source:
            yield source
    elif isinstance(video, str | Path):
        with _open_file(Path(video), start, stop, fps, threads, limits) as source:
            yield source
    elif isinstance(video, np.ndarray | Tensor):
        yield _sequence_source(ArrayFrames(video), start, stop, fps)
    elif is_image_list(video):
        yield _sequence_source(ImageFrames(video), start, stop, fps)
    elif is_decoder(video):
        yield _decoder_source(DecoderFrames(video), start, stop, fps)
    else:
        kind = f"{type(video).__name__}{'' if not isinstance(video, list | tuple) else f' of {len(video)} values'}"
        raise ValueError(
            f"a video of type {kind}, expected a path, an array, a tensor, a list of PIL images, or a decoder such as"
            " that of torchcodec; np.stack joins a list of arrays"
        )


def count_frames(
    video: Video,
    start: float = 0.0,
    stop: float | None = None,
    fps: Fraction | float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> int | None:
    """Return the expected number of frames; None if it is unknown. Arguments and errors as for `open_frames`."""
    with open_frames(video, start=start, stop=stop, fps=fps, limits=limits) as source:
        return source.total


def open_stream(
    file: BinaryIO,
    format: RawFormat = "y4m",
    *,
    size: tuple[int, int] | None = None,
    start: float = 0.0,
    stop: float | None = None,
    fps: Fraction | float | None = None,
    name: str = "standard input",
    limits: Limits = DEFAULT_LIMITS,
) -> FrameSource:
    """Open an uncompressed video that is read once, frame by frame.

    Args:
        file, format, size, name, limits: See `RawReader`.
        start, stop: Part of the video, in seconds.
        fps: Frames per second: the rate to sample y4m at, or the rate of frames without one, which is 30 by default.

    Raises:
        VideoError: There is no whole frame, or the header is damaged or of an unsupported kind.
    """
    check_part(name, start, stop, fps)
    reader = RawReader(file, format, size=size, name=name, limits=limits)
    given = None if fps is None else Fraction(fps).limit_denominator(100_000)
    rate = reader.video.fps or given or DEFAULT_FPS
    timed = ((index / rate, frame) for index, frame in enumerate(reader))
    frames = on_grid(timed, given or rate, 1 / rate, start=Fraction(start), stop=_fraction(stop))
    size = reader.video.width, reader.video.height
    return FrameSource(_not_empty(frames, name, start, stop), *size, given or rate, None, reader)


@contextmanager
def _open_file(
    path: Path,
    start: float,
    stop: float | None,
    fps: Fraction | float | None,
    threads: int | None,
    limits: Limits,
) -> Iterator[FrameSource]:
    if path.is_dir():
        source = _sequence_source(FolderFrames(path, limits), start, stop, fps)
        limits.check_duration(path, (source.total or 0) / source.fps)
        yield source
        return
    with VideoReader(path, start=start, stop=stop, fps=fps, threads=threads, limits=limits) as reader:
        info = reader.info
        yield FrameSource(iter(reader), info.width, info.height, reader.fps, reader.expected, reader)


def _sequence_source(frames: Frames, start: float, stop: float | None, fps: Fraction | float | None) -> FrameSource:
    """Open frames that have no times of their own."""
    check_part("the video", start, stop, fps)
    rate = DEFAULT_FPS if fps is None else Fraction(fps).limit_denominator(100_000)
    part = range(len(frames))[round(start * rate) : None if stop is None else round(stop * rate)]
    if not part:
        raise VideoError(
            f"no frame {describe_span(start, stop)}, expected a part of the {float(len(frames) / rate):g} seconds of"
            f" the video ({len(frames)} frames at {float(rate):g} per second)"
        )
    first = frames[part[0]]
    rest = (frames[index] for index in part[1:])
    return FrameSource(chain([first], rest), first.shape[1], first.shape[0], rate, len(part))


class _Losses:
    """Frames of a decoder that are not shown."""

    def __init__(self) -> None:
        self.warning: str | None = None
        self._count = 0

    def add(self) -> None:
        self._count += 1
        self.warning = f"the decoder: {self._count} frames are left out, as their times are damaged or too close"


def _decoder_source(
    frames: DecoderFrames, start: float, stop: float | None, fps: Fraction | float | None
) -> FrameSource:
    check_part("the decoder", start, stop, fps)
    rate = frames.fps if fps is None else Fraction(fps).limit_denominator(100_000)
    height, width, _ = frames.first.shape
    losses = _Losses()
    seconds = len(frames) / frames.fps
    end = seconds if stop is None else min(Fraction(stop), seconds)
    shown = on_grid(
        frames.timed(Fraction(start)),
        rate,
        frames.last_duration,
        start=Fraction(start),
        stop=_fraction(stop),
        each_once=fps is None,
        name="the decoder",
        on_loss=losses.add,
    )
    total = max(1, round((end - Fraction(start)) * rate))
    return FrameSource(_not_empty(shown, "the decoder", start, stop), width, height, rate, total, losses)


def _not_empty(frames: Iterator[Frame], name: str, start: float, stop: float | None) -> Iterator[Frame]:
    first = next(frames, None)
    if first is None:
        raise VideoError(f"{name}: no frame {describe_span(start, stop)}; expected a part of the video")
    yield first
    yield from frames


def _fraction(seconds: float | None) -> Fraction | None:
    return None if seconds is None else Fraction(seconds)
