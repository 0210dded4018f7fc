"""Two processes are one, and several batches of a step are one, though the rows of each are of other lengths."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from tests.helpers.distributed import launch
from tests.helpers.generators import write_tokens
from tests.helpers.train_generator import run


def test_two_processes_and_several_batches_equal_one(tmp_path):
    write_tokens(tmp_path / "tokens", 12)
    runs = {"one": (4, 1, ""), "parts": (1, 4, ""), "two": (1, 2, ""), "sharded": (2, 1, "sharding")}
    last = {}
    for name, (batch, accumulation, how) in runs.items():
        (tmp_path / name).mkdir()
        if name in ("one", "parts"):
            run(tmp_path / name, batch, accumulation, False)
        else:
            arguments = [tmp_path / name, batch, accumulation, how]
            launch("train_generator", *arguments, processes=2, log=tmp_path / f"{name}.txt")
        last[name] = tmp_path / name / "run/checkpoints/step-00000012"
    for file in ("model", "average"):
        one = load_file(last["one"] / f"{file}.safetensors")
        for name in runs:
            found = load_file(last[name] / f"{file}.safetensors")
            assert one.keys() == found.keys()
            for key, tensor in one.items():
                torch.testing.assert_close(found[key], tensor, atol=2e-5, rtol=0, msg=f"{name}: {key}")
