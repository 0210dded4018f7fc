"""Training of generators: runs, samples and presets."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from adaptok.checkpoints.model_folder import read_generator, write_folder
from adaptok.cli.main import main
from adaptok.config.generator import GeneratorConfig, generator_size
from adaptok.config.training import PartialGeneratorConfig, load_config
from adaptok.config.transformer import TransformerConfig
from adaptok.data.token_datasets import TokenDataset, TokenDatasetInfo, write_shard
from adaptok.metrics.fvd import Detector
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model, weights_hash
from adaptok.training.reporting import load_decoder, pad_ids, sample_ids
from adaptok.training.sequences import condition_of
from adaptok.training.token_data import open_token_data, resolve
from adaptok.training.trainer import Trainer
from tests.helpers.generators import CLASSES, generator_config, info, make_clips, write_tokens
from tests.helpers.models import small_config

FRAMES = {"condition_frames": 3}  # of two blocks, the first of them whole


def random_model(of: TokenDatasetInfo, **changes) -> GeneratorModel:
    torch.manual_seed(0)
    plan = PartialGeneratorConfig.parse({"width": 32, "depth": 2, "heads": 2, **changes})
    model = GeneratorModel(resolve(plan, of, CLASSES)).eval()
    for parameter in model.parameters():  # also those that start at zero
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def learned_perfectly(folder, of, tmp_path, **changes):
    """Train on eight clips until they are known; greedy samples are compared with them."""
    options = generator_config(
        folder,
        model={"width": 64, "depth": 2, "heads": 4, "dropout": 0, "token_dropout": 0, "class_dropout": 0, **changes},
        optimizer={"warmup_steps": 20, "lr": 5e-3},
        max_steps=250,
        micro_batch_size=8,
        ema_decay=0.9,
        log_every=50,
        validate_every=250,
        checkpoint_every=250,
    )
    data = open_token_data(options)
    model = Trainer(options, data, tmp_path / "run").train()
    clips = list(TokenDataset.open(folder))
    condition = np.stack([condition_of(clip, model.config, data.train.labels) for clip in clips])
    ids, lengths = sample_ids(model, torch.from_numpy(condition), None)
    first = model.config.first_block
    expected_ids, expected_lengths = pad_ids(clips, of.latents, torch.device("cpu"))
    assert torch.equal(lengths[:, first:], expected_lengths[:, first:])
    assert torch.equal(ids[:, first:], expected_ids[:, first:])
    if first:
        copied = torch.from_numpy(condition)[:, : first * of.latents].unflatten(1, (first, of.latents))
        assert torch.equal(ids[:, :first], copied)
        assert bool((lengths[:, :first] == of.latents).all())


@pytest.mark.parametrize("levels", [None, []], ids=["digits", "ids"])
def test_eight_clips_are_learned_perfectly_by_class(tmp_path, levels):
    of = info(blocks=4, latents=8)
    clips = [clip._replace(label=str(index)) for index, clip in enumerate(make_clips(8, of))]
    (tmp_path / "tokens").mkdir()
    write_shard(tmp_path / "tokens" / "0.parquet", clips, of)
    learned_perfectly(str(tmp_path / "tokens"), of, tmp_path, levels=levels)


def test_eight_clips_are_learned_perfectly_by_first_frames(tmp_path):
    of = info(**FRAMES)
    learned_perfectly(write_tokens(tmp_path / "tokens", 8, of), of, tmp_path, mixture=2)


def test_samples_keep_to_the_form(tmp_path):
    model = random_model(info(), levels=[])
    ids, lengths = sample_ids(model, torch.tensor([0, 1, 2, 0] * 8), 1)
    assert ids.shape == (32, 3, 6)
    assert bool((lengths[:, 0] >= 1).all())
    assert int(lengths.max()) == 6
    assert bool((ids < 60).all())
    assert not bool(ids[torch.arange(6) >= lengths[..., None]].any())
    for entry, expected in ((7, [6, 6, 6]), (60, [1, 0, 0])):  # closed by force; and ended as soon as may be
        model.output = Always(entry)
        _, lengths = sample_ids(model, torch.tensor([0, 1]), None)
        assert lengths.tolist() == [expected] * 2


@pytest.mark.parametrize("frames", [0, 3])
def test_samples_are_drawn_with_the_tokenizer_of_the_ids(tmp_path, frames, monkeypatch):
    """Pictures of samples, and their FVD on a schedule."""
    measured = []

    def network(clips, resize, return_features):
        measured.append(len(clips))
        return torch.cat([clips.mean((2, 3, 4)), clips.amax((2, 3, 4))], 1)

    monkeypatch.setattr("adaptok.training.stages.find_detector", lambda config, device: Detector(network, "test"))
    torch.manual_seed(0)
    model = Model(small_config())
    for parameter in model.parameters():  # also those that start at zero, without which all clips look the same
        torch.nn.init.normal_(parameter, std=0.3)
    write_folder(model, tmp_path / "tokenizer")
    tokenizer, hashed = model.config.tokenizer, weights_hash(model.state_dict())
    of = info(
        model_hash=hashed,
        codebook_size=tokenizer.quantizer.codebook_size,
        levels=tokenizer.quantizer.levels,
        latents=tokenizer.latents,
        blocks=tokenizer.blocks,
        condition_frames=frames,
    )
    path = write_tokens(tmp_path / "tokens", 8, of)
    options = generator_config(path, samples=3, tokenizer=str(tmp_path / "tokenizer"), max_steps=2, validate_every=1)
    options = options.model_copy(
        update={"fvd_every": 2, "data": options.data.model_copy(update={"validation": str(path)})}
    )
    Trainer(options, open_token_data(options), tmp_path / "run").train()
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    distances = {record["step"]: record["validation_fvd"] for record in records if "validation_fvd" in record}
    assert distances.keys() == {2}
    assert distances[2] > 0
    assert sum(measured) == 2 * 8  # the clips, and as many samples
    for step in (1, 2):
        picture = np.asarray(Image.open(tmp_path / "run" / "samples" / f"step-{step:08d}.png"))
        assert picture.shape[:2] == (6 * tokenizer.size, 8 * tokenizer.size)  # pairs of clips, 8 frames
        assert (tmp_path / "run" / "samples" / f"step-{step:08d}.mp4").exists()
    torch.manual_seed(1)
    write_folder(Model(small_config()), tmp_path / "other")
    wrong = generator_config(path, samples=3, tokenizer=str(tmp_path / "other"))
    with pytest.raises(ValueError, match=f"made by test with the weights {hashed[:8]}; give that model"):
        Trainer(wrong, open_token_data(wrong), tmp_path / "wrong")
    assert load_decoder(None, open_token_data(options).config, torch.device("cpu")) is None  # not the bundled model


def test_a_run_may_begin_with_the_weights_of_another(tmp_path):
    path = write_tokens(tmp_path / "tokens")
    first = generator_config(path, max_steps=2)
    Trainer(first, open_token_data(first), tmp_path / "first").train()
    second = generator_config(path, max_steps=1, initial=str(tmp_path / "first" / "model"))
    started = Trainer(second, open_token_data(second), tmp_path / "second").model.state_dict()
    expected = read_generator(tmp_path / "first" / "model").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in started.items())
    other = generator_config(
        path, initial=str(tmp_path / "first" / "model"), model={"width": 16, "depth": 2, "heads": 2}
    )
    with pytest.raises(ValueError, match="another architecture than this run"):
        Trainer(other, open_token_data(other), tmp_path / "other")


class Always(torch.nn.Module):
    """Gives one entry all the probability."""

    def __init__(self, entry):
        super().__init__()
        self.entry = entry

    def forward(self, x):
        return F.one_hot(torch.full(x.shape[:-1], self.entry), 61) * 20.0


def test_resumed_runs_equal_uninterrupted_ones(tmp_path, capsys):
    from tests.helpers.training import everything

    options = generator_config(
        write_tokens(tmp_path / "tokens", 10), data={"train": [str(tmp_path / "tokens")], "held_out": 0.2}
    )
    data = open_token_data(options)
    Trainer(options, data, tmp_path / "whole").train()

    def stop(line, at):
        if line.step >= at:
            raise KeyboardInterrupt

    for at in (3, 6, 10):
        with pytest.raises(KeyboardInterrupt):
            Trainer(options, open_token_data(options), tmp_path / "parts", lambda line, at=at: stop(line, at)).train()
    Trainer(options, open_token_data(options), tmp_path / "parts").train()
    (tensors, metrics), (again, metrics_again) = everything(tmp_path / "whole"), everything(tmp_path / "parts")
    assert tensors.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in tensors.items())
    assert metrics == metrics_again
    figures = [line for line in metrics if "validation_loss" in line]
    assert [line["step"] for line in figures] == [6, 12]
    assert all(0 <= line["validation_accuracy"] <= 1 for line in figures)
    main(["export", str(tmp_path / "parts"), str(tmp_path / "exported"), "--quiet"])
    exported, finished = read_generator(tmp_path / "exported"), read_generator(tmp_path / "parts/model")
    assert exported.config == finished.config == data.config
    assert all(torch.equal(t, finished.state_dict()[name]) for name, t in exported.state_dict().items())
    for name in ("exported", "parts/model"):
        card = (tmp_path / name / "README.md").read_text()
        assert "tokenizer test, from one of 3 classes, trained for 12 steps" in card
        assert "| accuracy |" in card


def test_the_command_line(tmp_path, capsys):
    path = write_tokens(tmp_path / "tokens", 8)
    flags = ["train", "generator", "--data.train", path, "--data.held-out", "0.3", "--model.depth", "1"]
    flags += ["--model.width", "64", "--micro-batch-size", "2", "--output", str(tmp_path / "run"), "--json", "--quiet"]
    main([*flags, "--dry-run"])
    document = json.loads(capsys.readouterr().out)
    assert document["labels"] == list(CLASSES)
    assert document["parameters"]["generator"] == parameters(GeneratorConfig.parse(document["model"]))
    main([*flags, "--max-steps", "3"])
    document = json.loads(capsys.readouterr().out)
    assert read_generator(document["model"]).config.labels == CLASSES
    with pytest.raises(SystemExit, match="2"):
        main(["train", "generator", "--data.train", path, "--data.label", "x"])
    assert "unknown key 'data.label', did you mean 'data.labels'?" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main(["train", "generator", "--help"])
    assert "--model.mixture" in capsys.readouterr().out


RECIPE = {
    "optimizer.lr": 6e-4,
    "optimizer.betas": (0.9, 0.95),
    "optimizer.weight_decay": 0.05,
    "batch_size": 64,
    "model.token_dropout": 0.1,
    "model.class_dropout": 0.1,
}


@pytest.mark.parametrize(("name", "epochs"), [("base", 3000), ("base-predictor", 75)])
def test_base_is_the_official_recipe(name, epochs):
    run = load_config(name, "generator")
    for field, expected in RECIPE.items():
        value = run
        for part in field.split("."):
            value = getattr(value, part)
        assert value == expected, field
    assert run.epochs == epochs
    size = TransformerConfig(width=run.model.width, depth=run.model.depth, heads=run.model.heads)
    assert size == generator_size("LP")


def parameters(model: GeneratorConfig) -> int:
    with torch.device("meta"):
        return sum(GeneratorModel(model).parameter_counts().values())


def test_official_sizes():
    size = generator_size("LP").model_dump()
    counts = [
        parameters(GeneratorConfig(**size, codebook_size=8192, blocks=4, latents=latents, classes=101))
        for latents in (256, 512)
    ]
    assert [round(count / 1e6, 1) for count in counts] == [632.0, 633.3]  # the published number is of 1,024 positions
    with pytest.raises(ValueError, match="generator size 'M', expected one of S, B, L, LP"):
        generator_size("M")


def test_tiny_is_small_enough_to_be_bundled():
    of = info(codebook_size=32768, levels=(16, 8, 8, 8, 4), latents=192, blocks=4, block_frames=4, size=128, step=16)
    model = resolve(load_config("tiny", "generator").model, of, ["a", "b", "c", "d"])
    assert 2 * parameters(model) < 12e6
