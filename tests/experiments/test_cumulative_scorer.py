"""Version 4 of the bundled model: targets of a cumulative scorer, a training on them, and a sharpened output layer."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adaptok.checkpoints.model_folder import read_folder, write_folder
from adaptok.config.model import ModelConfig
from adaptok.config.training import TrainingConfig
from adaptok.models.model import Model
from adaptok.training.clip_data import open_clip_data
from tests.helpers.models import small_config
from tests.helpers.training import config
from tests.helpers.videos import write_video

FOLDER = Path(__file__).parents[2] / "experiments" / "bundled_model"


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(FOLDER))
    try:
        import scorer_targets
        import sharpen
        import train_scorer
    finally:
        sys.path.pop(0)
    return scorer_targets, train_scorer, sharpen


def write_inputs(model: Model, described: ModelConfig, folder: Path) -> TrainingConfig:
    """Write the model, which draws something, as `initial`, and `videos` and the configuration of a scorer run."""
    torch.nn.init.normal_(model.tokenizer.to_pixels.weight, std=0.3)
    write_folder(model, folder / "initial")
    (folder / "videos").mkdir()
    for name in "abc":
        write_video(folder / "videos" / f"{name}.mp4", 12, (24, 32))
    run = config(folder, "scorer", model=described.model_dump(), lengths={"kind": "uniform", "min": 2, "max": 8})
    (folder / "run.json").write_text(run.model_dump_json())
    return run


def test_targets_are_measured_once_and_learned(scripts, tmp_path):
    targets, training, _ = scripts
    torch.manual_seed(0)
    small = small_config()
    model = Model(small.model_copy(update={"scorer": None}))
    changes = {"reads": "spectrum", "target": "cumulative", "degree": 1, "probe_lengths": (), "distortion": "mse"}
    described = small.model_copy(update={"scorer": small.scorer.model_copy(update=changes | {"scale": "log"})})
    run = write_inputs(model, described, tmp_path)
    data = ["--data", str(tmp_path / "videos")]
    arguments = [str(tmp_path / "run.json"), str(tmp_path / "out"), "--initial", str(tmp_path / "initial"), *data]
    targets.main([*arguments, "--clips", "24", "--part", "1/2"])
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["000001.safetensors"]
    targets.main([*arguments, "--clips", "24"])
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 3

    file = load_file(files[2])
    seen = run.model_copy(update={"data": run.data.model_copy(update={"train": (str(tmp_path / "videos"),)})})
    clips = torch.stack([open_clip_data(seen).train[16 + i] for i in range(8)])
    inputs, lengths = model.tokenizer.lookup(file["ids"].long()), file["lengths"].tolist()
    for block, column in ((0, 2), (2, 0)):
        chosen = [*lengths[:block], 2 * (int(file["columns"][block, column]) + 1), *lengths[block + 1 :]]
        with torch.no_grad():
            error = (model.tokenizer.decode(inputs, [chosen] * 8).clamp(0, 1) - clips).square()
        true = error[:, :, 2 * block :].mean((1, 2, 3, 4))
        torch.testing.assert_close(file["distortions"][:, block, column], true, rtol=1e-3, atol=1e-6)

    out = tmp_path / "scorer"
    options = ["--initial", str(tmp_path / "initial"), "--epochs", "4", "--held-out", "1", *data]
    training.main([str(tmp_path / "run.json"), str(tmp_path / "out"), str(out), *options])
    trained = read_folder(out).build().config.scorer
    assert (trained.reads, trained.degree, len(trained.curve)) == ("spectrum", 1, 4)
    assert trained.lambdas
    assert len((tmp_path / "scorer.jsonl").read_text().splitlines()) == 2


def test_an_output_layer_is_sharpened_in_place_of_a_filter(scripts, tmp_path):
    sharpen = scripts[2]
    torch.manual_seed(0)
    small = small_config()
    windows = small.tokenizer.model_copy(update={"decoder_window": 8})
    model = Model(small.model_copy(update={"tokenizer": windows})).eval()
    write_inputs(model, model.config, tmp_path)
    options = ["--initial", str(tmp_path / "initial"), "--data", str(tmp_path / "videos"), "--clips", "64"]
    sharpen.main([str(tmp_path / "run.json"), str(tmp_path / "out"), *options, "--amount", "0.5"])
    clips = torch.rand(4, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokenizers = [read_folder(tmp_path / name).build().tokenizer for name in ("initial", "out")]
        ids = [tokenizer.quantize(tokenizer.encode(clips)).ids for tokenizer in tokenizers]
        before, after = (t.decode(t.lookup(ids[0]), [[8, 6, 4, 2]] * 4) for t in tokenizers)
    assert torch.equal(*ids)
    wanted = before + 0.5 * sharpen.details(before)
    assert (after - wanted).square().mean() < 0.1 * (before - wanted).square().mean()
