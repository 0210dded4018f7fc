"""The measurement of tiles: equal tokens per pixel, and steps at borders that content does not explain."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from adaptok.codec.codec import AdapTok
from adaptok.models.model import weights_hash
from adaptok.video.geometry import Geometry
from tests.helpers.models import random_model, small_config
from tests.helpers.videos import write_video

SCRIPT = Path(__file__).parents[2] / "experiments" / "tiles.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    specification = importlib.util.spec_from_file_location("tiles_experiment", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_tiles_have_the_tokens_per_pixel_of_the_crop(script, tmp_path, capsys):
    model = random_model(small_config())
    AdapTok(model, weights_hash(model.state_dict())).save_pretrained(tmp_path / "model")
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "wide.mp4", 20, (40, 64))
    write_video(tmp_path / "videos" / "square.mp4", 20, (40, 40))
    script.main([str(tmp_path / "videos"), "--model", str(tmp_path / "model"), "--budget", "16", "--json"])
    results = json.loads(capsys.readouterr().out)
    assert list(results["videos"]) == ["wide"]
    wide = results["videos"]["wide"]
    assert wide["tiles"] == 2
    assert wide["tokens"]["crop"] == 32
    assert 0.9 < wide["tokens"]["tile"] / (32 * 64 / 40) <= 1
    assert wide["inside"] != wide["outside"]
    assert wide["seam"] == pytest.approx(1, abs=0.15)


def test_a_hard_border_is_a_seam(script):
    geometry = Geometry("tile", 64, 36, 16)
    tiles = geometry.split(torch.rand(3, 4, *geometry.canvas, generator=torch.Generator().manual_seed(0)) / 10)
    tiles[1] += 0.5
    smooth = geometry.merge(tiles)
    hard = smooth.clone()
    hard[..., :16] = tiles[0]
    smooth_seam, hard_seam = (script.steps(geometry, tiles, canvas, smooth)["seam"] for canvas in (smooth, hard))
    assert hard_seam > 3 * smooth_seam
