"""Conversion between 8-bit frames and float clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptok.video.pixels import check_range, clip_to_frames, frames_to_clip, to_uint8


def test_every_byte_survives_the_round_trip():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(2, 16, 8, 3)
    clip = frames_to_clip(frames)
    assert clip.shape == (3, 2, 16, 8)
    assert (clip.min(), clip.max()) == (0, 1)
    assert np.array_equal(clip_to_frames(clip), frames)


def test_values_are_rounded_and_clamped():
    values = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.5])
    assert to_uint8(values).tolist() == [0, 0, 1, 255, 255]
    assert to_uint8(values.bfloat16()).dtype == np.uint8


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01, 255.0])
def test_values_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match="expected"):
        check_range(torch.tensor([0.5, value]))
    check_range(torch.tensor([-1e-4, 1 + 1e-4]))
