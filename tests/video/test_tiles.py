"""Tiles cover a canvas and blend without seams; windows of time cross-fade."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from adaptok.video.geometry import Geometry
from adaptok.video.tiles import Tiling
from adaptok.video.windows import CrossFade, Windows


@pytest.mark.parametrize(
    ("width", "height", "overlap"), [(16, 16, 4), (17, 16, 4), (28, 16, 0), (41, 57, 3), (40, 16, 8)]
)
def test_tiles_blend_to_what_they_were_cut_from(width, height, overlap):
    canvas = torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(0))
    tiling = Tiling(width, height, 16, overlap)
    tiles = tiling.split(canvas)
    assert tiles.shape == (tiling.count, 3, 2, 16, 16)
    torch.testing.assert_close(tiling.merge(tiles), canvas)
    for starts, length in ((tiling.rows, height), (tiling.columns, width)):
        assert starts[0] == 0
        assert starts[-1] + 16 == length
        assert all(left + 16 - right >= overlap for left, right in pairwise(starts))


def test_tiles_differ_without_a_step_in_the_canvas():
    tiling = Tiling(28, 16, 16, 4)
    tiles = torch.zeros(2, 1, 1, 16, 16)
    tiles[1] = 1
    row = tiling.merge(tiles)[0, 0, 0]
    assert row[:12].max() == 0
    assert row[16:].min() == 1
    assert row.diff().abs().max() < 0.4  # 4 pixels of overlap share the step


def test_tiles_weigh_the_same_in_the_middle_of_a_large_overlap():
    tiling = Tiling(20, 16, 16, 4)  # 12 pixels of overlap
    tiles = torch.zeros(2, 1, 1, 16, 16)
    tiles[1] = 1
    row = tiling.merge(tiles)[0, 0, 0]
    assert row[6:14].tolist() == [0.5] * 8
    assert (row.diff() >= 0).all()
    assert row.diff().abs().max() < 0.4


def test_the_canvas_has_the_aspect_ratio_of_the_frame():
    assert Geometry("tile", 640, 360, 128).canvas == (128, 128 + 104)  # 640 / 360 * 128 is 228
    assert Geometry("tile", 360, 640, 128, short_side=256).canvas == (128 + 3 * 104, 128 + 2 * 72)
    assert Geometry("tile", 130, 128, 128).tiles == 1  # not a second tile for two columns
    assert Geometry.choose("auto", 90, 90, 128).fit == "crop"
    assert Geometry.choose("auto", 90, 80, 128).fit == "tile"
    assert Geometry("tile", 640, 360, 128).loss == 0
    with pytest.raises(ValueError, match="short side 64, expected at least 128"):
        Geometry("tile", 640, 360, 128, short_side=64)
    with pytest.raises(ValueError, match="expected the fit 'tile'"):
        Geometry.choose("crop", 640, 360, 128, short_side=256)


@pytest.mark.parametrize("frames", [1, 5, 8, 9, 13, 14, 40])
@pytest.mark.parametrize("overlap", [0, 1, 4])
def test_windows_cross_fade_to_the_whole_video(frames, overlap):
    windows = Windows(frames, 8, overlap)
    video = torch.rand(3, frames, 2, 2, generator=torch.Generator().manual_seed(0))
    fade, parts = CrossFade(overlap), []
    for index in range(windows.count):
        clip = video[:, index * windows.stride :][:, :8]
        last = index == windows.count - 1
        assert clip.shape[1] == (windows.last if last else 8)
        parts.append(fade.push(clip, last=last))
    torch.testing.assert_close(torch.cat(parts, 1), video)
    for frame in range(frames):
        index, place = windows.at(frame)
        assert index * windows.stride + place == frame
        assert place < 8
