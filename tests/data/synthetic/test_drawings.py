"""Drawings: functions of the random state, with sharp edges; captions; and their fractions of a run."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import torch

from adaptok.config.training import load_config
from adaptok.data.clips import ClipMixture
from adaptok.data.synthetic.drawings import Drawings, add_caption, draw_clip
from adaptok.training.clip_data import open_clip_data


def rng(seed):
    return np.random.default_rng((7, seed))


def test_a_drawing_is_a_function_of_the_random_state():
    clips = [draw_clip(rng(seed), 8, 48) for seed in range(12)]
    for seed, clip in enumerate(clips):
        assert clip.shape == (3, 8, 48, 48)
        assert clip.dtype == torch.float32
        assert clip.min() >= 0
        assert clip.max() <= 1
        assert torch.equal(clip, draw_clip(rng(seed), 8, 48))
    assert len({clip.mean().item() for clip in clips}) == len(clips)
    moving = [not torch.equal(clip[:, 0], clip[:, -1]) for clip in clips]
    assert any(moving)
    assert not all(moving)


def test_drawings_have_sharp_edges():
    steps = torch.stack([(clip[..., 1:] - clip[..., :-1]).abs().amax() for clip in _drawings(40)])
    assert (steps > 0.5).float().mean() > 0.5


def test_captions_cover_part_of_a_clip_at_any_size():
    clip = torch.full((3, 6, 64, 64), 0.5)
    covered = [(add_caption(clip, rng(seed)) != clip).float().mean().item() for seed in range(60)]
    assert max(covered) > 0.1
    assert np.median(covered) > 0.02
    assert (clip == 0.5).all()
    small = add_caption(torch.rand(3, 2, 8, 8), rng(0))
    assert small.shape == (3, 2, 8, 8)


def test_a_run_can_use_drawings_only():
    config = load_config("tiny", "tokenizer")
    drawn = config.data.model_copy(update={"drawn_fraction": 1.0, "train": (), "validation": None})
    alone = config.model_copy(update={"data": drawn})
    data = open_clip_data(alone)
    assert data.num_files == 0
    assert torch.equal(data.train[3], open_clip_data(alone).train[3])


def test_the_fraction_of_drawings_refers_to_all_clips():
    config = load_config("tiny", "tokenizer")
    with as_file(files("adaptok") / "assets") as folder:
        data = config.data.model_copy(update={"drawn_fraction": 0.25, "train": (str(folder),), "validation": None})
        mixture = open_clip_data(config.model_copy(update={"data": data})).train
        plain = open_clip_data(
            config.model_copy(update={"data": data.model_copy(update={"drawn_fraction": 0.0})})
        ).train
        drawn = [not torch.equal(mixture[i], plain[i]) and _has_flat_parts(mixture[i]) for i in range(40)]
    assert 4 <= sum(drawn) <= 16


def _has_flat_parts(clip):
    """Return whether most pixels lie on exact gradients, which camera images do not have."""
    second = clip[..., 2:] - 2 * clip[..., 1:-1] + clip[..., :-2]
    return (second.abs() < 2e-3).float().mean() > 0.8


def test_captions_do_not_change_the_other_clips():
    without = ClipMixture([Drawings()], [1.0], frames=4, size=48, seed=2)
    some = ClipMixture([Drawings()], [1.0], frames=4, size=48, seed=2, text_fraction=0.5)
    same = [torch.equal(without[i], some[i]) for i in range(20)]
    assert 4 <= sum(same) <= 16


def _drawings(count):
    return [draw_clip(rng(seed), 2, 64) for seed in range(count)]
