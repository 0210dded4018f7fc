"""Setting fields of a configuration by dotted keys."""

from __future__ import annotations

import pytest

from adaptok.config.lengths import FixedLengths, NormalLengths, UniformLengths
from adaptok.config.optimization import BatchPlan
from adaptok.config.training import (
    STAGES,
    AnyConfig,
    config_fields,
    dump_config,
    load_config,
    load_training_config,
    override,
    preset_names,
)

OFFICIAL = load_config("base", "tokenizer")  # 250 epochs, 8 of them warm-up
TINY = load_config("tiny", "tokenizer")


def get(config: AnyConfig, key: str):
    for name in key.split("."):
        config = getattr(config, name)
    return config


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("optimizer.lr", "5e-4", 5e-4),
        ("optimizer.betas", "0.5, 0.95", (0.5, 0.95)),
        ("optimizer.max-grad-norm", "null", None),
        ("compile", "true", True),
        ("lpips-weights", "null", None),
        ("lpips_weights", "1e3", "1e3"),
        ("data.train", "a,b", ("a", "b")),
        ("data.train", ["a,b", "c"], ("a,b", "c")),
        ("data.train", "[a, 'b,c']", ("a", "b,c")),
        ("losses.lpips.frames", "2", 2),
        ("losses.start_steps.adversarial", "100", 100),
        ("lengths.mean", "9", 9.0),
        ("model.prior.depth", "3", 3),
        ("trainable", "decoder", ("decoder",)),
    ],
)
def test_text_is_read_according_to_the_type(key, text, value):
    changed = override(OFFICIAL, {key: text})
    if key.startswith("losses.start"):
        assert changed.losses.start_steps == {"adversarial": value}
    else:
        assert get(changed, key.replace("-", "_")) == value
    assert load_config("base", "tokenizer") == OFFICIAL


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("steps", "max_steps", "7"),
        ("optimizer.learning_rate", "optimizer.lr", "0.5"),
        ("optimizer.clip_norm", "optimizer.max_grad_norm", "0.5"),
        ("batch", "micro_batch_size", "4"),
        ("start", "initialization", "random"),
        ("lengths.most", "lengths.max", "100"),
        ("data.most_broken", "data.max_broken_fraction", "0.5"),
        ("discriminator.learning_rate", "discriminator.lr", "0.5"),
    ],
)
def test_old_names_are_accepted(old, new, text):
    assert override(OFFICIAL, {old: text}) == override(OFFICIAL, {new: text})
    with pytest.raises(ValueError, match=f"{new} is given twice"):
        override(OFFICIAL, {old: text, new: text})


def test_max_steps_replaces_epochs_and_keeps_the_proportion_of_the_warm_up():
    changed = override(OFFICIAL, {"max_steps": "500"})
    assert (changed.max_steps, changed.epochs) == (500, None)
    assert (changed.optimizer.warmup_epochs, changed.optimizer.warmup_steps) == (None, 16)
    assert override(OFFICIAL, {"max_steps": 500, "optimizer.warmup_steps": 3}).optimizer.warmup_steps == 3
    back = override(changed, {"epochs": "2.5"})
    assert (back.max_steps, back.epochs) == (None, 2.5)
    with pytest.raises(ValueError, match="give exactly one of them"):
        override(OFFICIAL, {"max_steps": "5", "epochs": "5"})


def test_kinds_can_be_switched():
    changed = override(OFFICIAL, {"lengths.kind": "uniform"})
    assert changed.lengths == UniformLengths(min=32, max=512)  # the bounds that both kinds have
    assert override(changed, {"lengths.std": "9", "lengths.mean": "90", "lengths.kind": "normal"}).lengths == (
        NormalLengths(min=32, max=512, mean=90, std=9)
    )
    assert override(OFFICIAL, {"lengths": "{kind: fixed, length: 7}"}).lengths == FixedLengths(length=7)
    vector = override(TINY, {"model.tokenizer.quantizer.kind": "vector", "model.tokenizer.quantizer.dim": "8"})
    assert vector.model.tokenizer.quantizer.dim == 8
    assert vector.model.tokenizer.quantizer.temperature == 0.03  # the default of the kind
    patch = override(OFFICIAL, {"discriminator.kind": "patch", "discriminator.channels": "16"}).discriminator
    assert (patch.kind, patch.channels, patch.lr, patch.betas) == ("patch", 16, 3e-5, (0.5, 0.9))


def test_components_can_be_added_and_removed():
    with_prior = override(TINY, {"model.tokenizer.quantizer.kind": "vector", "model.prior.width": "256"})
    assert with_prior.model.prior.width == 256
    assert override(with_prior, {"model.prior": "null"}).model.prior is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.lrr": "1"}, "unknown key 'optimizer.lrr', did you mean 'optimizer.lr'"),
        ({"optimizer.learning_rte": "1"}, "did you mean 'optimizer.lr'"),
        ({"warmup_steps": "1"}, "did you mean 'optimizer.warmup_steps'"),
        ({"optimizer.lr.peak": "1"}, "'optimizer.lr' has no fields"),
        ({"qqqqqq": "1"}, "expected one of activation_checkpointing, batch_size"),
        (
            {"lengths.kind": "normall"},
            "lengths.kind 'normall', expected one of uniform, normal, truncated_normal, fixed, allocated, mixture",
        ),
        ({"lengths.length": "3"}, "lengths.length exists only for lengths.kind fixed"),
        ({"optimizer.kind": "sgd"}, "'adamw' or 'muon', got 'sgd'"),
        ({"max_steps": "many"}, "max_steps: .*integer.*got 'many'"),
        ({"model.tokenizer.latents": "64"}, "lengths.max 512 is above the 64 latents"),
        ({"data.strides": "[1, 2"}, "data.strides '\\[1, 2' is not valid YAML"),
        ({"stage": "scorer"}, "model.scorer is null"),
    ],
)
def test_mistakes_are_named_in_one_line(values, message):
    with pytest.raises(ValueError, match=message) as error:
        override(OFFICIAL, values)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage in STAGES for name in preset_names(stage)])
def test_resolved_configurations_run_as_they_are(stage, name, tmp_path):
    config = load_training_config(name, stage, {"seed": "5"})
    (tmp_path / "resolved.yaml").write_text(dump_config(config))
    assert load_training_config(str(tmp_path / "resolved.yaml"), stage) == config
    assert config.seed == 5


def test_missing_presets_and_other_stages_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"huge: no such preset; expected .* base, small, tiny"):
        load_training_config("huge", "scorer")
    (tmp_path / "x.yaml").write_text(dump_config(OFFICIAL))
    with pytest.raises(ValueError, match="configuration of stage 'tokenizer', expected 'scorer'"):
        load_training_config(str(tmp_path / "x.yaml"), "scorer")


@pytest.mark.parametrize("stage", STAGES)
def test_all_fields_are_described(stage):
    fields = {field.key: field for field in config_fields(stage)}
    assert not [key for key, field in fields.items() if not field.help.endswith((".", ")")) and key[-4:] != "kind"]
    assert fields["optimizer.max_grad_norm"].type == "float | null"
    assert fields["optimizer.max_grad_norm"].default == 1.0
    if stage == "tokenizer":
        assert fields["discriminator.kind"].type == "transformer | patch"
        assert fields["model.tokenizer.quantizer.levels"].type == "[int, ...]"
        assert "lengths.length" in fields


@pytest.mark.parametrize(
    ("values", "processes", "expected"),
    [
        ({}, 1, (128, 128, 1)),
        ({}, 4, (128, 32, 1)),
        ({"micro_batch_size": 16}, 2, (128, 16, 4)),
        ({"gradient_accumulation_steps": 4}, 2, (128, 16, 4)),
        ({"micro_batch_size": 4, "gradient_accumulation_steps": 2}, 1, (8, 4, 2)),
        ({"micro_batch_size": 4, "gradient_accumulation_steps": 2}, 3, (24, 4, 2)),
        ({"batch_size": "null", "micro_batch_size": 4}, 2, (8, 4, 1)),
        ({"batch_size": "null"}, 2, (8, 4, 1)),
    ],
)
def test_batch_sizes_follow_from_each_other(values, processes, expected):
    config = override(OFFICIAL, values)
    assert config.batch_plan(processes) == BatchPlan(*expected)
    assert config.with_batch_plan(processes).batch_plan(processes) == BatchPlan(*expected)


def test_indivisible_batch_sizes_are_errors_with_the_nearest_sizes():
    with pytest.raises(ValueError, match="10 is not a multiple of micro_batch_size 4; set batch_size to 8 or 12"):
        override(OFFICIAL, {"batch_size": 10, "micro_batch_size": 4})
    with pytest.raises(ValueError, match="128 is not a multiple of processes 3; set batch_size to 126 or 129"):
        OFFICIAL.batch_plan(3)
    config = override(OFFICIAL, {"batch_size": 64, "micro_batch_size": 8, "gradient_accumulation_steps": 2})
    assert config.batch_plan(4) == BatchPlan(64, 8, 2)
    with pytest.raises(ValueError, match="batch_size 64 differs from micro_batch_size 8 x processes 2 x"):
        config.batch_plan(2)


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        ({"batch": 4, "accumulation": 2}, (4, 2)),
        ({"accumulation": 2}, (8, 2)),
        ({"batch": 4}, (4, None)),
        ({}, (8, None)),
    ],
)
def test_old_files_keep_their_batch_per_process(old, expected):
    values = {"stage": "generator", "model": {"width": 32, "depth": 1, "heads": 1}, "steps": 5, **old}
    config = STAGES["generator"].parse(values)
    assert (config.micro_batch_size, config.gradient_accumulation_steps) == expected
    micro, accumulation = expected[0], expected[1] or 1
    for processes in (1, 2):
        assert config.batch_plan(processes) == BatchPlan(micro * accumulation * processes, micro, accumulation)
