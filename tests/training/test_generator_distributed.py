"""A generator trains the same on two processes or with accumulated gradients, though each sees other row lengths."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.generators import write_tokens
from tests.helpers.processes import run_group
from tests.helpers.train_generator import run


@pytest.mark.slow
def test_two_processes_and_several_batches_equal_one(tmp_path):
    write_tokens(tmp_path / "tokens", 12)
    runs = {"one": (4, 1, 1), "accumulated": (1, 4, 1), "two": (1, 2, 2), "sharded": (2, 1, 2)}
    last = {}
    for name, (batch, accumulation, processes) in runs.items():
        (tmp_path / name).mkdir()
        arguments = [tmp_path / name, batch, accumulation, name == "sharded"]
        run_group(run, *arguments, processes=processes, log=tmp_path / f"{name}.txt")
        last[name] = tmp_path / name / "run/checkpoints/step-00000012"
    for file in ("model", "average"):
        one = load_file(last["one"] / f"{file}.safetensors")
        for name in runs:
            other = load_file(last[name] / f"{file}.safetensors")
            assert one.keys() == other.keys()
            for key, tensor in one.items():
                torch.testing.assert_close(other[key], tensor, atol=2e-5, rtol=0, msg=f"{name}: {key}")
