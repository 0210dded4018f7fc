"""Measures of visible patches and of blur, against plain loops and in the cases where they have no number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adaptok.evaluation.measures import Measures
from adaptok.metrics.distortion import edge_ratio, sharpness


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def squares(side, size, frames=2):
    """A clip `[1, 3, T, S, S]` of flat squares of random colours."""
    return F.interpolate(noise(1, 3, frames, size // side, size // side), scale_factor=(1, side, side))


def loop(clip, patch):
    """The definition of the edge ratio of a clip `[C, T, H, W]`, pixel by pixel."""
    clip = clip.double().numpy()
    borders, others = [], []
    for y in range(clip.shape[2]):
        for x in range(clip.shape[3]):
            for before, at, place in (((y - 1, x), (y, x), y), ((y, x - 1), (y, x), x)):
                if place > 0:
                    steps = np.abs(clip[:, :, before[0], before[1]] - clip[:, :, at[0], at[1]])
                    (borders if place % patch == 0 else others).append(steps)
    return np.mean(borders) / np.mean(others)


@pytest.mark.parametrize("patch", [2, 5, 8])
def test_the_edge_ratio_is_its_definition(patch):
    clips = noise(2, 3, 2, 16, 19)  # sides that the patch does not divide
    expected = [loop(clip, patch) for clip in clips]
    np.testing.assert_allclose(edge_ratio(clips, patch), expected, rtol=1e-5)
    np.testing.assert_allclose(edge_ratio(clips.half(), patch), expected, rtol=1e-2)


def test_the_edge_ratio_shows_patches():
    assert edge_ratio(torch.full((2, 3, 2, 32, 32), 0.3), 16).tolist() == [1, 1]
    blocky = squares(16, 64) + 0.01 * noise(1, 3, 2, 64, 64, seed=1)
    assert edge_ratio(blocky, 16).item() > 20
    assert edge_ratio(blocky, 16).item() > edge_ratio(blocky, 8).item() > 5
    assert edge_ratio(blocky.roll((3, 3), (-1, -2)), 16).item() < 1  # the grid of another place
    for patch in (4, 8, 16, 24):
        assert edge_ratio(noise(1, 3, 4, 96, 96), patch).item() == pytest.approx(1, abs=0.02)


def test_edge_ratios_that_are_no_number():
    assert edge_ratio(squares(16, 64), 16).item() == math.inf
    assert edge_ratio(noise(2, 3, 2, 16, 16), 16).isnan().all()  # no border in the frame
    assert edge_ratio(noise(1, 3, 2, 16, 16), 1).isnan().all()  # nothing but borders
    assert edge_ratio(torch.full((1, 3, 2, 32, 32), torch.nan), 16).isnan().all()


def test_sharpness():
    clips = noise(2, 3, 2, 32, 32)
    assert sharpness(clips, clips).tolist() == [1, 1]
    blurred = F.avg_pool3d(clips, (1, 3, 3), stride=1, padding=(0, 1, 1), count_include_pad=False)
    assert (sharpness(blurred, clips) < 0.5).all()
    assert (sharpness(clips, blurred) > 2).all()
    torch.testing.assert_close(sharpness(0.25 * clips, clips), torch.full((2,), 0.25))
    rows = clips[..., :1].expand_as(clips)  # without horizontal differences
    assert sharpness(rows, rows).tolist() == [1, 1]
    assert sharpness(rows, clips).tolist() == [0, 0]
    assert sharpness(clips, rows).tolist() == [math.inf, math.inf]


def test_clips_are_measured_on_the_grid_of_the_reconstruction():
    made, true = noise(2, 3, 4, 24, 40)
    for patch in (4, 8):
        measures = Measures(("sharpness", "edge_ratio"), patch_size=patch)
        expected = [sharpness(made[None], true[None]).item(), edge_ratio(made[None], patch).item()]
        assert measures.clip(made, true).tolist() == expected
