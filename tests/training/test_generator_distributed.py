"""Two processes are one, and several batches of a step are one, though the rows of each are of other lengths."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.training.test_distributed import LAUNCH
from tests.training.test_generator import write
from tests.training.two_generators import run

SCRIPT = Path(__file__).with_name("two_generators.py")


def test_two_processes_and_several_batches_equal_one(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    write(tmp_path / "tokens", 12)
    runs = {"one": (4, 1, ""), "parts": (1, 4, ""), "two": (1, 2, ""), "sharded": (2, 1, "sharding")}
    last = {}
    for name, (batch, accumulation, how) in runs.items():
        (tmp_path / name).mkdir()
        if name in ("one", "parts"):
            run(tmp_path / name, batch, accumulation, False)
        else:
            command = [sys.executable, *LAUNCH, str(SCRIPT), str(tmp_path / name), str(batch), str(accumulation), how]
            said = tmp_path / f"{name}.txt"
            with said.open("w") as file:  # no pipe: what a process leaves behind would hold it open
                done = subprocess.run(command, env=environment, stdout=file, stderr=file, timeout=200)
            assert done.returncode == 0, said.read_text()[-3000:]
        last[name] = tmp_path / name / "run/checkpoints/step-00000012"
    for file in ("model", "average"):
        one = load_file(last["one"] / f"{file}.safetensors")
        for name in runs:
            found = load_file(last[name] / f"{file}.safetensors")
            assert one.keys() == found.keys()
            for key, tensor in one.items():
                torch.testing.assert_close(found[key], tensor, atol=2e-5, rtol=0, msg=f"{name}: {key}")
