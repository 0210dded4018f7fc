"""Frames with regular, damaged and extreme times on the instants of a constant rate."""

from __future__ import annotations

from fractions import Fraction

import pytest

from adaptok.video.container import VideoError
from adaptok.video.timing import MAX_REPEATS, on_grid


def place(times, fps=1, **options):
    """Return the indices of the frames that are shown, and the number of those that were lost."""
    lost = []
    frames = ((Fraction(time), index) for index, time in enumerate(times))
    options = {"last_duration": Fraction(1, fps), "on_loss": lambda: lost.append(1), **options}
    return list(on_grid(frames, Fraction(fps), **options)), len(lost)


@pytest.mark.parametrize(
    ("times", "shown", "lost"),
    [
        ([0, 1, 2, 3], [0, 1, 2, 3], 0),
        ([0, 1.3, 1.9, 3.2], [0, 1, 2, 3], 0),  # rounded, each once
        ([0, 0.1, 0.2, 3], [2, 2, 2, 3], 2),  # too close for the rate
        ([0, 0, 0, 0], [3], 3),
        ([0, 1, 5, 2, 3], [0, 1, 1, 1, 1, 2], 2),  # one time is too late
        ([0, -8, -7, -6], [0], 3),  # the first one is
        ([0, 3, 2, 1], [0, 0, 0, 1], 2),
    ],
)
def test_frames_that_are_not_shown_are_counted(times, shown, lost):
    assert place(times, each_once=True) == (shown, lost)


def test_frames_that_are_left_out_on_purpose_are_not_counted():
    seconds = [Fraction(i, 10) for i in range(40)]
    assert place(seconds, last_duration=Fraction(1, 10)) == ([0, 10, 20, 30], 0)
    assert place(seconds, start=Fraction(1), stop=Fraction(3)) == ([10, 20], 0)
    assert place(seconds, 10, start=Fraction(1), stop=Fraction(2), each_once=True) == (list(range(10, 20)), 0)
    assert place([*seconds[:20], Fraction(0), *seconds[20:]], last_duration=Fraction(1, 10)) == ([0, 10, 21, 31], 1)


@pytest.mark.parametrize("each_once", [False, True])
def test_a_pause_has_a_limit(each_once):
    assert len(place([0, MAX_REPEATS], each_once=each_once)[0]) == MAX_REPEATS + 1
    for times, fps in (([0, 24 * 86400], 1), ([0, 3600], 25), ([0, 10**30], 1)):
        with pytest.raises(VideoError, match=r"^film: one frame is shown for \d+ seconds, .* choose a lower rate with"):
            place(times, fps, each_once=each_once, name="film")
    assert place([0, 10**30], stop=Fraction(3), each_once=each_once)[0] == [0, 0, 0]
    with pytest.raises(VideoError, match="expected at most 65536 times"):
        place([0], last_duration=Fraction(10**6))
