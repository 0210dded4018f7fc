"""Checkpoints survive SIGKILL at any moment. `make crash` kills whole runs, which resume to the same numbers."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from adaptok.training.checkpointing import RunState, list_checkpoints, remove_old_checkpoints, save_checkpoint
from tests.helpers.processes import PROCESSES


def kill_while_writing(folder, after: float) -> None:
    """Write checkpoints in another process, which is killed some seconds after one has appeared."""
    before = list_checkpoints(folder)
    process = PROCESSES.Process(target=write_for_ever, args=(folder,))
    process.start()
    while process.is_alive() and list_checkpoints(folder) == before:
        time.sleep(0.001)
    process.join(after)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()


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
    for _ in range(5):
        kill_while_writing(tmp_path, after=rng.uniform(0, 0.1))
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
    assert reached > 4


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
