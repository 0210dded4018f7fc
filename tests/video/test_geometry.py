"""Fitting frames to the square of the model, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptok.video.geometry import Geometry
from tests.helpers.raw_videos import difference, numbered_frames


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (5, 300), (1, 7)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_fit_is_undone(fit, size):
    height, width = size
    frames = numbered_frames(2, height, width)
    geometry = Geometry(fit, width, height, 128)
    square = geometry.apply(frames)
    assert square.shape == (3, 2, 128, 128)
    assert 0 <= square.min() <= square.max() <= 1
    back = geometry.invert(square)
    top, left, rows, columns = geometry.region
    seen = np.zeros(size, bool)
    seen[top : top + rows, left : left + columns] = True
    assert (back[:, ~seen] == 0).all()
    assert difference(back[:, seen], frames[:, seen]) < 4


def test_fit_sees_what_it_says():
    frames = np.zeros((1, 90, 160, 3), np.uint8)
    frames[:, :, 35:125] = 255  # the middle square
    assert Geometry("crop", 160, 90, 128).apply(frames).min() == 1
    padded = Geometry("pad", 160, 90, 128).apply(frames)
    row, column, rows, columns = Geometry("pad", 160, 90, 128).window
    assert (rows, columns) == (72, 128)
    assert torch.equal(padded[:, :, :row], torch.zeros_like(padded[:, :, :row]))
    assert abs(float(padded[0, 0, 64].mean()) - 90 / 160) < 0.02
    assert column == 0
