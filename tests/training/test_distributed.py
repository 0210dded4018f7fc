"""Two processes with half of the batch each are one process with all of it, whether they share the weights or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_processes.py")
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.parametrize(
    ("more", "steps", "others"),
    [([], 20, ("two", "sharded")), (["adaptive"], 6, ("sharded",))],
    ids=["fixed weight", "adaptive weight"],
)
def test_two_processes_equal_one(tmp_path, more, steps, others):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    runs = {"one": ([], 4, more), "two": (LAUNCH, 2, more), "sharded": (LAUNCH, 2, [*more, "sharding"])}
    last = {}
    for name in ("one", *others):
        start, batch, how = runs[name]
        (tmp_path / name).mkdir()
        command = [sys.executable, *start, str(SCRIPT), str(tmp_path / name), str(batch), *how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        last[name] = tmp_path / name / "run/checkpoints" / f"step-{steps:08d}"
    for file in ("model", "average"):
        one = load_file(last["one"] / f"{file}.safetensors")
        for name in others:
            found = load_file(last[name] / f"{file}.safetensors")
            assert one.keys() == found.keys()
            for key, tensor in one.items():
                torch.testing.assert_close(found[key], tensor, atol=1e-5, rtol=0, msg=f"{name}: {key}")
