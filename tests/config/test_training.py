"""The presets: every number of the official recipe, and errors that name the field."""

from __future__ import annotations

import pytest

from adaptok.config.training import load_config, load_training_config
from adaptok.training.estimate import parameter_counts, step_flops

RECIPE = {
    "model.tokenizer.frames": 16,
    "model.tokenizer.size": 128,
    "model.tokenizer.patch_size": 8,
    "model.tokenizer.temporal_patch_size": 4,
    "model.tokenizer.latents": 512,
    "model.tokenizer.quantizer.size": 8192,
    "model.tokenizer.quantizer.dim": 16,
    "model.tokenizer.quantizer.temperature": 0.03,
    "model.tokenizer.quantizer.commitment_weight": 0.25,
    "model.tokenizer.quantizer.codebook_weight": 1.0,
    "model.prior.sampling_peak": 0.5,
    "model.prior.sampling_ramp": 0.3,
    "model.prior.dropout": 0.1,
    "data.sampling": "videos",
    "data.clip_start": "random",
    "data.strides": (1,),
    "data.still_fraction": 0.0,
    "data.crop": "center",
    "data.flip": False,
    "lengths.kind": "truncated_normal",
    "lengths.mean": 256,
    "lengths.std": 128,
    "lengths.min": 32,
    "lengths.max": 512,
    "losses.l1": 1.0,
    "losses.lpips.weight": 1.0,
    "losses.quantizer": 0.1,
    "losses.prior": 0.06,
    "losses.adversarial": 0.3,
    "discriminator.width": 512,
    "discriminator.heads": 8,
    "discriminator.depth": 12,
    "discriminator.patch_size": 8,
    "discriminator.temporal_patch_size": 4,
    "discriminator.lr": 3e-5,
    "discriminator.update_interval": 5,
    "discriminator.real_noise": 0.15,
    "discriminator.real_min": 0.7,
    "discriminator.fake_noise": 0.15,
    "discriminator.fake_max": 0.3,
    "discriminator.lecam": 1e-6,
    "discriminator.lecam_of": "means",
    "discriminator.lecam_decay": 0.999,
    "discriminator.betas": (0.5, 0.9),
    "discriminator.norm_eps": 1e-6,
    "discriminator.center_input": False,
    "discriminator.update_first": True,
    "discriminator.follow_schedule": True,
    "optimizer.lr": 1e-4,
    "optimizer.betas": (0.5, 0.9),
    "optimizer.weight_decay": 0.0,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_epochs": 8,
    "optimizer.final_lr_ratio": 0.01,
    "optimizer.initial_lr_ratio": 0.01,
    "optimizer.max_grad_norm": None,
    "optimizer.prior_lr_multiplier": 1.0,
    "ema_decay": 0.0,
    "epochs": 250,
    "batch_size": 128,
}


def test_base_is_the_official_recipe():
    config = load_config("base", "tokenizer")
    for name, expected in RECIPE.items():
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        assert value == expected, name
    scorer = load_config("base", "scorer")
    assert (scorer.epochs, scorer.model.scorer.length_step, scorer.data.clip_start) == (150, 64, "first")
    shared = ("strides", "still_fraction", "crop", "flip", "sampling")
    assert all(getattr(scorer.data, name) == getattr(config.data, name) for name in shared)
    optimizer = config.optimizer.model_copy(update={"prior_lr_multiplier": scorer.optimizer.prior_lr_multiplier})
    assert scorer.optimizer == optimizer
    assert (scorer.lengths, scorer.ema_decay) == (config.lengths, 0.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data.drawn_fraction": 0.5}, r"data.drawn_fraction 0.5 does not work with data.sampling videos"),
        ({"data.sampling": "clips", "data.clip_start": "first"}, "data.clip_start first needs data.sampling videos"),
    ],
)
def test_videos_are_visited_only_where_that_is_possible(values, message):
    with pytest.raises(ValueError, match=message):
        load_training_config("base", "tokenizer", values)


def test_parameters_of_base():
    counts = parameter_counts(load_config("base", "tokenizer"))
    scorer = parameter_counts(load_config("base", "scorer"))["scorer"]
    assert [round(counts[name] / 1e6) for name in ("tokenizer", "prior")] == [173, 22]
    assert counts["prior"] / 1e6 == pytest.approx(22.1, abs=0.05)
    assert scorer / 1e6 == pytest.approx(89.0, abs=0.05)


@pytest.mark.parametrize("stage", ["tokenizer", "scorer"])
@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_presets_are_whole(name, stage):
    assert step_flops(load_config(name, stage)) > 0


def test_several_fields_are_overridden_at_once():
    values = {"epochs": "2", "data.train": ["a", "b"], "optimizer.lr": "3e-4", "model.tokenizer.encoder.depth": "6"}
    config = load_training_config("base", "tokenizer", values)
    assert (config.epochs, config.data.train) == (2, ("a", "b"))
    assert config.optimizer.lr == 3e-4
    assert config.model.tokenizer.encoder.depth == 6
    assert config.losses.adversarial == 0.3


def test_typos_in_files_are_named(tmp_path):
    (tmp_path / "x.yaml").write_text("stage: tokenizer\nmodel: {}\nlengths: {kind: fixed, length: 8}\nmax_step: 5\n")
    with pytest.raises(ValueError, match="did you mean 'max_steps'"):
        load_config(str(tmp_path / "x.yaml"), "tokenizer")


def test_unknown_stages_are_named(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("stage: None\n")
    with pytest.raises(ValueError, match=r"run.yaml: stage 'None', expected one of tokenizer, scorer, generator"):
        load_config(str(path), "None")
