"""Frame sources: arrays and files give the same frames, and bad ones are refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from adaptok.video.sources import open_frames
from adaptok.video.writing import VideoWriter
from tests.helpers.raw_videos import difference, numbered_frames


def test_files_and_arrays_give_the_same_frames(tmp_path):
    frames = numbered_frames(12)
    with VideoWriter(tmp_path / "x.mp4", 30, crf=0) as writer:
        writer.write(frames)
    with open_frames(frames) as array, open_frames(tmp_path / "x.mp4") as file:
        assert (array.width, array.height, array.fps, array.total) == (file.width, file.height, file.fps, file.total)
        assert difference(np.stack(list(array.frames)), np.stack(list(file.frames))) < 2


def test_clips_are_frames_in_order():
    clips = torch.rand(2, 3, 4, 8, 10)
    with open_frames(clips, fps=12.5) as source:
        assert (source.width, source.height, source.fps, source.total) == (10, 8, Fraction(25, 2), 8)
        frames = np.stack(list(source.frames))
    assert np.array_equal(frames, clips.permute(0, 2, 3, 4, 1).flatten(0, 1).numpy())


def test_parts_of_arrays():
    frames = numbered_frames(12)
    with open_frames(frames, start=0.2, stop=0.3, fps=30) as source:
        assert np.array_equal(np.stack(list(source.frames)), frames[6:9])
    with pytest.raises(ValueError, match=r"no frame from 10 seconds on, expected a part of the 0\.4 seconds"):
        open_frames(frames, start=10.0).__enter__()
    with pytest.raises(ValueError, match="no frame between 1 and 2 seconds"):
        open_frames(frames, start=1.0, stop=2.0).__enter__()


@pytest.mark.parametrize("video", [3, None, np.zeros((4, 8, 8), np.uint8), np.zeros((4, 8, 8, 3), np.int64)])
def test_other_values_are_refused(video):
    with pytest.raises(ValueError, match="expected"):
        open_frames(video).__enter__()
