"""Shapes: functions of seed and index, with smooth movement and distinguishable classes, written as videos."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptok.data.synthetic.shapes import CLASSES, draw_shape_clip, write_shapes
from adaptok.video.reading import read_video


@pytest.mark.parametrize("name", CLASSES)
def test_a_clip_depends_on_seed_and_index(name):
    clip = draw_shape_clip(3, 5, name, 8, 32)
    assert clip.shape == (3, 8, 32, 32)
    assert clip.dtype == torch.float32
    assert 0 <= clip.min() < clip.max() <= 1
    assert torch.equal(clip, draw_shape_clip(3, 5, name, 8, 32))
    assert torch.equal(clip[:, :5], draw_shape_clip(3, 5, name, 5, 32))
    assert not torch.equal(clip, draw_shape_clip(4, 5, name, 8, 32))
    assert not torch.equal(clip, draw_shape_clip(3, 6, name, 8, 32))


@pytest.mark.parametrize("name", CLASSES)
def test_shapes_move_without_jumps(name):
    for index in range(4):
        clip = draw_shape_clip(0, index, name, 16, 64)
        moved = (clip[:, 1:] - clip[:, :-1]).abs().amax(0).flatten(1)  # [T - 1, pixels]
        fraction = (moved > 0.1).float().mean(1)
        assert (fraction > 0.005).float().mean() > 0.6  # a bar may be outside the picture for a moment
        assert fraction.max() < 0.2


def test_classes_differ_in_the_positions_of_the_shape():
    """Centres of the pixels that differ from the background stay in place (spin), on a line (slide), on a circle
    (orbit), or on neither (bounce)."""
    spread = {}
    for name in CLASSES:
        values = []
        for index in range(6):
            clip = draw_shape_clip(1, index, name, 16, 64)
            differs = (clip - clip.median(1, keepdim=True).values).abs().sum(0) > 0.25
            centres = [np.argwhere(frame.numpy()).mean(0) / 64 for frame in differs if frame.any()]
            values.append(np.stack(centres).std(0))
        spread[name] = np.median(np.stack([np.sort(value) for value in values]), 0)
    assert spread["spin"].max() < 0.06
    assert spread["slide"][0] < 0.04 < 0.1 < spread["slide"][1]
    assert spread["orbit"].min() > 0.07


def test_videos_are_written_in_labelled_folders_and_kept(tmp_path):
    settings = {"size": 32, "frames": 6}
    assert write_shapes(tmp_path, 9, **settings) == {"bounce": 3, "orbit": 2, "slide": 2, "spin": 2}
    path = tmp_path / "orbit" / "00001.mp4"
    frames = read_video(path)[0].astype(np.float32) / 255
    expected = draw_shape_clip(0, 1, "orbit", 6, 32).permute(1, 2, 3, 0).numpy()
    assert frames.shape == expected.shape
    assert np.abs(frames - expected).mean() < 0.03
    before = path.stat().st_mtime_ns
    (tmp_path / "spin" / "00001.mp4").unlink()
    write_shapes(tmp_path, 12, **settings)
    assert path.stat().st_mtime_ns == before
    assert len(list(tmp_path.rglob("*.mp4"))) == 12
    with pytest.raises(ValueError, match="shapes of other settings"):
        write_shapes(tmp_path, 12, seed=1, **settings)


def test_an_unknown_class():
    with pytest.raises(ValueError, match="'fall' of shapes, expected one of bounce, orbit, slide, spin"):
        draw_shape_clip(0, 0, "fall", 4, 32)
