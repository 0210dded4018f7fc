"""The recipe of the bundled model: configurations and commands."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from adaptok.cli.main import main
from adaptok.config.training import STAGES, load_config

FOLDER = Path(__file__).parents[2] / "experiments" / "bundled_model"


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    specification = importlib.util.spec_from_file_location("bundled_model_recipe", FOLDER / "run.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def commands(recipe: ModuleType, monkeypatch, tmp_path: Path, *options: str) -> list[list[str]]:
    """Commands that the recipe runs; each training leaves a model and measures 5 clips per second."""
    ran = []

    def execute(command, **_):
        ran.append(command[command.index("adaptok") + 1 :] if "adaptok" in command else command[1:])
        ran[-1][0] = Path(ran[-1][0]).name
        if ran[-1][0] == "train_scorer.py":
            Path(ran[-1][3]).mkdir(parents=True)
            (Path(ran[-1][3]) / "config.json").touch()
        if ran[-1][0] == "train":
            out = Path(ran[-1][ran[-1].index("--output") + 1])
            (out / "model").mkdir(parents=True)
            (out / "model" / "config.json").touch()
            (out / "metrics.jsonl").write_text('{"step": 20, "clips_per_second": 5.0}\n')
        return type("Result", (), {"returncode": 0})

    monkeypatch.setattr(recipe.subprocess, "run", execute)
    recipe.main(["--data", "data", "--lpips", "lpips", "--out", str(tmp_path), *options])
    return ran


def value(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_each_stage_starts_from_the_one_before_and_is_run_once(recipe, monkeypatch, tmp_path):
    ran = commands(recipe, monkeypatch, tmp_path)
    kinds = [command[0] if command[0] != "train" else command[1] for command in ran]
    scripts = ["scorer_targets.py", "train_scorer.py"]
    assert kinds == ["tokenizer", "tokenizer", *scripts, "data", "tokenize", "generator", "evaluate"]
    assert value(ran[1], "--initial") == str(tmp_path / "reconstruction" / "model")
    assert value(ran[2], "--initial") == value(ran[3], "--initial") == str(tmp_path / "perceptual" / "model")
    assert ran[2][2] == ran[3][2]  # the targets
    assert value(ran[5], "--model") == value(ran[7], "--model") == ran[3][3] == str(tmp_path / "scorer" / "model")
    assert commands(recipe, monkeypatch, tmp_path) == ran[-1:]  # only the report, which continues by itself


def test_lengths_are_decided_once(recipe, monkeypatch, tmp_path):
    options = ["--stages", "reconstruction", "--minutes", "reconstruction", "2"]
    calibration, training = commands(recipe, monkeypatch, tmp_path, *options)
    assert value(calibration, "--max-steps") == str(recipe.CALIBRATION_STEPS)
    assert value(training, "--max-steps") == str(5 * 120 // 4)
    (tmp_path / "reconstruction" / "model" / "config.json").unlink()  # as if it had been stopped
    (tmp_path / "reconstruction" / "model").rmdir()
    (again,) = commands(recipe, monkeypatch, tmp_path, *options)
    assert again == training
    assert json.loads((tmp_path / "plan.json").read_text()) == {"reconstruction": 150}


def test_a_scorer_sees_as_many_clips_as_can_be_measured_in_its_time(recipe, monkeypatch, tmp_path):
    clock = iter([0.0, 18.0, 18.0, 68.0])  # 10 s to start, and 1 s for each of 8 clips, and then of 40 more
    monkeypatch.setattr(recipe.time, "monotonic", lambda: next(clock))
    ran = commands(recipe, monkeypatch, tmp_path, "--stages", "scorer", "--minutes", "scorer", "30")
    assert [value(command, "--clips") for command in ran[:3]] == ["8", "48", "1800"]
    assert value(ran[3], "--held-out") == "2"  # of 225 files
    assert json.loads((tmp_path / "plan.json").read_text()) == {"scorer": 225}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clips", "scorer", "-5"], "scorer -5, expected a number above 0"),
        (["--clips", "scorer", "5", "--minutes", "scorer", "5"], "--clips and --minutes for scorer"),
    ],
)
def test_lengths_that_cannot_be_are_errors(recipe, monkeypatch, tmp_path, options, message):
    with pytest.raises(SystemExit, match=message):
        commands(recipe, monkeypatch, tmp_path, *options)


def test_a_command_that_fails_stops_the_recipe(recipe, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    seen = []

    def fail(command, env, **_):
        seen.append((command, env["CUDA_VISIBLE_DEVICES"]))
        return type("Result", (), {"returncode": 7})

    monkeypatch.setattr(recipe.subprocess, "run", fail)
    with pytest.raises(SystemExit, match="exit code 7; start again to continue"):
        recipe.main(["--data", "data", "--lpips", "lpips", "--out", str(tmp_path), "--processes", "2"])
    ((command, devices),) = seen
    assert command[command.index("--nproc-per-node") + 1] == "2"
    assert devices == ""  # --device cpu trains on the CPU whatever the environment says


def test_an_unknown_stage_is_an_error(recipe, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="'reconstructon' is not a training stage"):
        commands(recipe, monkeypatch, tmp_path, "--clips", "reconstructon", "10")


@pytest.mark.parametrize("stage", ["reconstruction", "perceptual", "generator"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_configurations_and_overrides_are_valid(recipe, stage, device, tmp_path, capsys):
    kind = "tokenizer" if stage in ("reconstruction", "perceptual") else stage
    config = load_config(str(FOLDER / f"{stage}.yaml"), kind)
    run = recipe.Recipe(data=Path("d"), lpips=Path("l"), out=tmp_path, device=device)
    main([*run.training_arguments(stage), "--max-steps", "7", "--print-config"])
    resolved = STAGES[kind].parse(yaml.safe_load(capsys.readouterr().out))
    assert resolved.max_steps == 7
    assert resolved.micro_batch_size == (
        recipe.CUDA[stage]["micro_batch_size"] if device == "cuda" else config.micro_batch_size
    )
