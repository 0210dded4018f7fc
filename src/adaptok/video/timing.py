"""Placing the frames of a video on the instants of a constant frame rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

from adaptok.video.container import VideoError

T = TypeVar("T")
MAX_REPEATS = 65536
"""Longest pause, as a number of instants at which one frame is shown. A frame of a GIF is shown for at most 65,535."""
_EARLY = Fraction(1, 1000)
"""Fraction of a period by which a frame may be late and still count as on time."""


@dataclass(frozen=True, slots=True)
class _Placed(Generic[T]):
    """A frame, and its place among the instants, counted from `start`.

    Attributes:
        index: First instant at which it is shown.
        until: Instant up to which it is shown if it is the last frame.
        wanted: Whether it is no frame before `start`.
    """

    frame: T
    index: int
    until: int
    wanted: bool


def on_grid(
    frames: Iterable[tuple[Fraction, T]],
    fps: Fraction,
    last_duration: Fraction,
    *,
    start: Fraction = Fraction(0),
    stop: Fraction | None = None,
    each_once: bool = False,
    name: object = "the video",
    on_loss: Callable[[], None] = lambda: None,
) -> Iterator[T]:
    """Yield the frame that is shown at each instant `start + i / fps`, which is the last one before it.

    Args:
        frames: Frames in order, each with its time in seconds. They are read only as far as they are needed.
        fps: Instants per second.
        last_duration: Duration of the last frame, in seconds.
        start, stop: Part of the video, in seconds. `stop` is exclusive.
        each_once: The frames have this rate on average. Each is yielded once, with its time rounded by up to half a
            period, and again only where the video has longer pauses.
        name: Name of the video in messages.
        on_loss: Called for each frame that is left out because it is earlier than one before it, or although
            `each_once` is set. At lower rates, frames are left out on purpose.

    Raises:
        VideoError: A frame is shown for more than `MAX_REPEATS` instants.
    """
    end = math.inf if stop is None else math.ceil((stop - start) * fps - _EARLY)
    slot = 0  # next instant
    shown: _Placed[T] | None = None
    is_new = False  # whether `shown` has not been yielded
    for placed in _placed(frames, fps, start, last_duration, each_once):
        if shown is not None and placed.index < shown.index:  # times run backwards
            if placed.wanted:
                on_loss()
            continue
        if shown is not None:
            last = min(placed.index, end)
            _check_pause(last - slot, fps, name)
            while slot < last:
                yield shown.frame
                is_new, slot = False, slot + 1
            if is_new and each_once and shown.wanted and slot < end:
                on_loss()
        if slot >= end:
            return
        shown, is_new = placed, True
    if shown is not None:
        last = min(shown.until, end)
        _check_pause(last - slot, fps, name)
        while slot < last:
            yield shown.frame
            slot += 1


def _check_pause(repeats: float, fps: Fraction, name: object) -> None:
    if repeats > MAX_REPEATS:
        raise VideoError(
            f"{name}: one frame is shown for {float(repeats / fps):.0f} seconds, {repeats} times at {float(fps):g}"
            f" frames per second, expected at most {MAX_REPEATS} times; correct its timestamps, or choose a lower rate"
            " with --fps or a part with --start and --stop"
        )


def _placed(
    frames: Iterable[tuple[Fraction, T]], fps: Fraction, start: Fraction, last_duration: Fraction, each_once: bool
) -> Iterator[_Placed[T]]:
    """Yield frames with their places."""
    place: Fraction | None = None
    index = 0
    for time, frame in frames:
        before, place = place, (time - start) * fps
        if not each_once:
            index = math.ceil(place - _EARLY)
        elif before is not None and 0.5 < place - before < 1.5 and abs(place - index - 1) < 1:
            index += 1  # the next frame, however times are rounded
        else:
            index = math.floor(place + Fraction(1, 2))
        until = index + 1 if each_once else math.ceil(place + fps * last_duration - _EARLY)
        yield _Placed(frame, index, until, index >= 0 or time < 0)
