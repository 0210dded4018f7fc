"""Two processes with half of the batch each are one process with all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_processes.py")


def test_two_processes_equal_one(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, start, batch in (("two", launch, 2), ("one", [], 4)):
        (tmp_path / name).mkdir()
        command = [sys.executable, *start, str(SCRIPT), str(tmp_path / name), str(batch)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (
        load_file(tmp_path / name / "run/checkpoints/step-00000020/model.safetensors") for name in ("one", "two")
    )
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
