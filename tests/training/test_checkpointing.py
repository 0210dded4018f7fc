"""Checkpoints survive SIGKILL at any moment, and killed runs resume to the same numbers."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from adaptok.metrics.lpips import Lpips
from adaptok.training.checkpointing import RunState, list_checkpoints, remove_old_checkpoints, save_checkpoint
from tests.helpers import training
from tests.helpers.processes import PROCESSES


def run(options, folder) -> None:
    torch.set_num_threads(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    training.train(options, folder)


def killed(target, *arguments, after: float, watch=lambda: None) -> bool:
    """Start, and send SIGKILL some seconds after what `watch` gives has changed; whether that came before the end."""
    before = watch()
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    while before is not None and process.is_alive() and watch() == before:
        time.sleep(0.002)
    process.join(after)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["tokenizer", "scorer"])
def test_killed_runs_resume_to_the_same_numbers(tmp_path, stage):
    changes = {"max_steps": 12, "checkpoint_every": 2, "validate_every": 7, "keep_checkpoints": 1, "trackers": []}
    if stage == "tokenizer":  # all losses
        random = Lpips().features.state_dict()
        save_file({f"features.{name}": tensor for name, tensor in random.items()}, tmp_path / "vgg.safetensors")
        changes["lpips_weights"] = str(tmp_path / "vgg.safetensors")
        changes["losses"] = training.LOSSES | {"lpips": 0.5}
    options = training.config(tmp_path, stage, **changes)
    assert not killed(run, options, tmp_path / "whole", after=600)
    speed = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[3])["clips_per_second"]
    rng = np.random.default_rng(0)
    parts = tmp_path / "parts"
    watched = (lambda: list_checkpoints(parts)), (lambda: sorted(parts.rglob("*")))  # in turn: there is an end to it
    kills = 0
    while killed(
        run, options, parts, after=rng.uniform(0, 5) * options.micro_batch_size / speed, watch=watched[kills % 2]
    ):
        kills += 1
        assert kills < 40
    print(f"{kills} kills")
    assert kills
    whole, parts = (training.everything(tmp_path / name) for name in ("whole", "parts"))
    assert whole[0].keys() == parts[0].keys()
    assert all(torch.equal(tensor, parts[0][name]) for name, tensor in whole[0].items())
    assert whole[1] == parts[1]


def write_for_ever(folder) -> None:
    """Checkpoints, one after the other, each full of its own number."""
    torch.set_num_threads(1)
    checkpoints = list_checkpoints(folder)
    step = int(checkpoints[-1].name[5:]) if checkpoints else 0
    while True:
        step += 1
        tensors = {
            name: {str(i): torch.full((64, 1024), float(step)) for i in range(4)} for name in ("model", "average")
        }
        save_checkpoint(folder, tensors, RunState(step, {}))
        remove_old_checkpoints(folder, keep=2)


@pytest.mark.slow
def test_killed_while_checkpoints_are_written(tmp_path):
    rng = np.random.default_rng(0)
    reached = 0
    for _ in range(30):
        assert killed(write_for_ever, tmp_path, after=rng.uniform(0.05, 0.4))
        checkpoints = list_checkpoints(tmp_path)
        for folder in checkpoints:
            step = float(folder.name[5:])
            for name in ("model", "average"):
                values = load_file(folder / f"{name}.safetensors")
                assert all((values[str(i)] == step).all() for i in range(4))
            assert RunState.load(folder) == RunState(int(step), {})
        if checkpoints:
            assert len(checkpoints) <= 3  # two, and one that was to be removed
            reached, before = int(checkpoints[-1].name[5:]), reached
            assert reached >= before
    assert reached > 30


@pytest.mark.parametrize(("best", "stored"), [(None, "null"), (21.5, "21.5")])
def test_state_is_valid_json(tmp_path, best, stored):
    state = RunState(3, {}, best=best)
    checkpoint = save_checkpoint(tmp_path, {}, state)
    text = (checkpoint / "state.json").read_text()
    assert f'"best": {stored}' in text
    assert RunState.load(checkpoint).best == best


def test_state_without_a_score_of_earlier_versions(tmp_path):
    (tmp_path / "state.json").write_text('{"step": 3, "model": {}, "best": -Infinity}')
    assert RunState.load(tmp_path).best is None
