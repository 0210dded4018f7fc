"""The study of allocations: distortions of combinations, and an oracle that nothing beats."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptok.codec.codec import AdapTok
from adaptok.models.model import weights_hash
from tests.helpers.models import random_model, small_config
from tests.helpers.videos import write_video

FOLDER = Path(__file__).parents[2] / "experiments" / "allocation"


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(FOLDER))
    try:
        import measure
        import study
    finally:
        sys.path.pop(0)
    return measure, study


@pytest.fixture(scope="module")
def measured(scripts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    model = random_model(small_config())
    AdapTok(model, weights_hash(model.state_dict())).save_pretrained(folder / "model")
    (folder / "videos").mkdir()
    for name, size in (("a", (32, 40)), ("b", (16, 16)), ("c", (40, 24))):
        write_video(folder / "videos" / f"{name}.mp4", 9, size)
    write_video(folder / "videos" / "short.mp4", 5, (16, 16))
    scripts[0].main([str(folder / "videos"), str(folder / "out.npz"), "--model", str(folder / "model")])
    return folder


def test_distortions_are_those_of_decoded_clips(scripts, measured):
    data = np.load(measured / "out.npz")
    lengths = data["lengths"].tolist()
    assert data["names"].tolist() == ["a", "b", "c"]
    assert lengths == [2, 4, 6, 8]
    codec = AdapTok.from_pretrained(measured / "model", device="cpu")
    clips = torch.stack([clip for _, clip in scripts[0].read_clips(codec, measured / "videos")])
    ids = codec.encode_clips(clips).ids
    for levels in ((0, 0, 0, 0), (3, 1, 2, 0), (2, 3, 0, 3)):
        decoded = codec.decode_clips(ids, [[lengths[level] for level in levels]] * 3).clamp(0, 1)
        true = (decoded - clips).square().unflatten(2, (4, 2)).mean((1, 3, 4, 5))
        for block in range(4):
            index = (slice(None), *levels[: block + 1])
            np.testing.assert_allclose(data[f"mse_{block}"][index], true[:, block], rtol=1e-4)


def test_nothing_beats_the_oracle(scripts, measured, capsys):
    budgets = [12, 16, 24]
    videos = ["--videos", str(measured / "videos"), "--model", str(measured / "model")]
    flags = ["--budgets", ",".join(map(str, budgets)), "--json", *videos]
    scripts[1].main([str(measured / "out.npz"), *flags])
    table = json.loads(capsys.readouterr().out)
    study = scripts[1].Study(measured / "out.npz", "mse")
    for budget in budgets:
        row = table[f"{float(budget)}"]
        assert {"uniform", "fixed", "own", "cumulative, round 0", "scorer", "oracle"} <= row.keys()
        spent = study.lengths[study.oracle(budget)].sum(1).mean()
        assert spent <= budget
        # the best of all combinations for the same tokens of each clip
        best = max(
            study.quality[0, i] + study.quality[1, j] + study.quality[2, k]
            for i, j, k in itertools.product(range(0, 256, 5), repeat=3)
            if study.tokens[[i, j, k]].sum() <= spent * 3
        )
        assert row["oracle"] >= best / 3 - 1e-9
