"""Drawn clips: a function of seed and index, smooth, of classes that can be told apart, and written as videos."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from adaptok.cli.main import main
from adaptok.data.synthetic.shapes import CLASSES, draw_shape_clip
from adaptok.video.reading import VideoReader


@pytest.mark.parametrize("name", CLASSES)
def test_a_clip_is_a_function_of_seed_and_index(name):
    clip = draw_shape_clip(3, 5, name, 8, 32)
    assert clip.shape == (3, 8, 32, 32)
    assert clip.dtype == torch.float32
    assert 0 <= clip.min() < clip.max() <= 1
    assert torch.equal(clip, draw_shape_clip(3, 5, name, 8, 32))
    assert torch.equal(clip[:, :5], draw_shape_clip(3, 5, name, 5, 32))
    assert not torch.equal(clip, draw_shape_clip(4, 5, name, 8, 32))
    assert not torch.equal(clip, draw_shape_clip(3, 6, name, 8, 32))


@pytest.mark.parametrize("name", CLASSES)
def test_everything_moves_and_nothing_jumps(name):
    for index in range(4):
        clip = draw_shape_clip(0, index, name, 16, 64)
        moved = (clip[:, 1:] - clip[:, :-1]).abs().amax(0).flatten(1)  # [T - 1, pixels]
        share = (moved > 0.1).float().mean(1)
        assert (share > 0.005).float().mean() > 0.6  # a bar may be out of the picture for a moment
        assert share.max() < 0.2


def test_classes_are_told_apart_by_where_the_shape_is():
    """Centres of what differs from the background: they stand still (spin), keep to a line (slide), to a circle
    (orbit), or to neither (bounce)."""
    spread = {}
    for name in CLASSES:
        values = []
        for index in range(6):
            clip = draw_shape_clip(1, index, name, 16, 64)
            differs = (clip - clip.median(1, keepdim=True).values).abs().sum(0) > 0.25
            seen = [np.argwhere(frame.numpy()).mean(0) / 64 for frame in differs if frame.any()]
            values.append(np.stack(seen).std(0))
        spread[name] = np.median(np.stack([np.sort(value) for value in values]), 0)
    assert spread["spin"].max() < 0.06
    assert spread["slide"][0] < 0.04 < 0.1 < spread["slide"][1]
    assert spread["orbit"].min() > 0.07


def test_the_command_writes_labelled_folders_and_goes_on(tmp_path, capsys):
    flags = ["--size", "32", "--frames", "6", "--json", "--quiet"]
    main(["data", "shapes", str(tmp_path / "all"), "--clips", "9", *flags])
    assert json.loads(capsys.readouterr().out)["classes"] == {"bounce": 3, "orbit": 2, "slide": 2, "spin": 2}
    path = tmp_path / "all" / "orbit" / "00001.mp4"
    with VideoReader(path) as reader:
        frames = np.stack(list(reader)).astype(np.float32) / 255
    expected = draw_shape_clip(0, 1, "orbit", 6, 32).permute(1, 2, 3, 0).numpy()
    assert frames.shape == expected.shape
    assert np.abs(frames - expected).mean() < 0.03
    before = path.stat().st_mtime_ns
    (tmp_path / "all" / "spin" / "00001.mp4").unlink()
    main(["data", "shapes", str(tmp_path / "all"), "--clips", "12", *flags])
    assert path.stat().st_mtime_ns == before
    assert len(list((tmp_path / "all").rglob("*.mp4"))) == 12
    with pytest.raises(SystemExit, match="2"):
        main(["data", "shapes", str(tmp_path / "all"), "--clips", "12", "--seed", "1", *flags])
    assert "shapes of other settings" in capsys.readouterr().err


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="'fall' of shapes, expected one of bounce, orbit, slide, spin"):
        draw_shape_clip(0, 0, "fall", 4, 32)
