"""Written videos give back their frames, and errors leave no file."""

from __future__ import annotations

import numpy as np
import pytest

from adaptok.video.container import VideoError
from adaptok.video.reading import read_video
from adaptok.video.writing import VideoWriter
from tests.helpers.raw_videos import difference, numbered_frames


@pytest.mark.parametrize("size", [(48, 64), (37, 53), (1, 40), (16, 16)])
def test_round_trip_of_frames_and_colours(tmp_path, size):
    frames = numbered_frames(20, *size)
    frames[:, : size[0] // 2] = frames[:, : size[0] // 2] * (1.0, 0.5, 0.1)
    with VideoWriter(tmp_path / "x.mp4", 30, crf=4) as writer:
        writer.write(frames)
    back, rate = read_video(tmp_path / "x.mp4")
    assert rate == 30
    back = back[:, : size[0], : size[1]]
    assert back.shape == frames.shape
    assert difference(back, frames) < 2.5


def test_nothing_is_left_after_an_error(tmp_path):
    def fail() -> None:
        with VideoWriter(tmp_path / "x.mp4", 30) as writer:
            writer.write(numbered_frames(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with pytest.raises(VideoError, match="no frames"), VideoWriter(tmp_path / "x.mp4", 30):
        pass
    with pytest.raises(VideoError, match="expected a suffix"):
        VideoWriter(tmp_path / "x.gif", 30)
    assert list(tmp_path.iterdir()) == []


def test_the_same_frames_give_the_same_file(tmp_path):
    """Whatever was in memory before. Frames of 48 x 48 pixels once gave one of several files."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (16, 6, 6, 3), np.uint8)
    frames = coarse.repeat(8, 1).repeat(8, 2)
    files = set()
    for index in range(12):
        garbage = [rng.integers(0, 256, size, np.uint8) for size in rng.integers(10, 200_000, 200)]
        del garbage
        with VideoWriter(tmp_path / f"{index}.mp4", 8) as writer:
            writer.write(frames)
        files.add((tmp_path / f"{index}.mp4").read_bytes())
    assert len(files) == 1
