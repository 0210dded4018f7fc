"""Two processes with half of the batch each train as one process with all of it, with and without sharded weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.processes import run_group, torchrun
from tests.helpers.train_tokenizer import run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adaptive", "others"),
    [(False, ("two", "sharded")), (True, ("sharded",))],
    ids=["fixed weight", "adaptive weight"],
)
def test_two_processes_equal_one(tmp_path, adaptive, others):
    for name in ("one", *others):
        folder, log = tmp_path / name, tmp_path / f"{name}.txt"
        folder.mkdir()
        if name == "two":
            torchrun("train_tokenizer", folder, 2, processes=2, log=log)
        elif name == "sharded":
            run_group(run, folder, 2, True, adaptive, processes=2, log=log)
        else:
            run_group(run, folder, 4, False, adaptive, processes=1, log=log)
    last = {name: tmp_path / name / "run/checkpoints" / "step-00000006" for name in ("one", *others)}
    for file in ("model", "average"):
        one = load_file(last["one"] / f"{file}.safetensors")
        for name in others:
            other = load_file(last[name] / f"{file}.safetensors")
            assert one.keys() == other.keys()
            for key, tensor in one.items():
                torch.testing.assert_close(other[key], tensor, atol=1e-5, rtol=0, msg=f"{name}: {key}")
