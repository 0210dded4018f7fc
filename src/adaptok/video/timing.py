"""Placing the frames of a video on the instants of a constant frame rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TypeVar

T = TypeVar("T")
_EARLY = Fraction(1, 1000)
"""Fraction of a period by which a frame may be late and still count as on time."""


def on_grid(
    frames: Iterable[tuple[Fraction, T]],
    fps: Fraction,
    last_duration: Fraction,
    *,
    start: Fraction = Fraction(0),
    stop: Fraction | None = None,
    each_once: bool = False,
) -> Iterator[T]:
    """Yield the frame that is shown at each instant `start + i / fps`, which is the last one before it.

    Args:
        frames: Frames in order, each with its time in seconds. They are read only as far as they are needed.
        fps: Instants per second.
        last_duration: Duration of the last frame, in seconds.
        start, stop: Part of the video, in seconds. `stop` is exclusive.
        each_once: The frames have this rate on average. Each is yielded once, with its time rounded by up to half a
            period, and again only where the video has longer pauses.
    """
    end = math.inf if stop is None else math.ceil((stop - start) * fps - _EARLY)
    slot, until = 0, 0
    shown: T | None = None
    for frame, index, last in _placed(frames, fps, last_duration, start, each_once):
        if shown is not None:
            while slot < min(index, end):
                yield shown
                slot += 1
        if slot >= end:
            return
        shown, until = frame, last
    if shown is not None:
        while slot < min(until, end):
            yield shown
            slot += 1


def _placed(
    frames: Iterable[tuple[Fraction, T]], fps: Fraction, last_duration: Fraction, start: Fraction, each_once: bool
) -> Iterator[tuple[T, int, int]]:
    """Yield frames, the index of the instant from which each is shown, counted from `start`, and the index up to which
    it would be shown if it were the last frame."""
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
        yield frame, index, index + 1 if each_once else math.ceil(place + fps * last_duration - _EARLY)
