"""Scripts of this folder, run in one process or in a group of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def launch(module: str, *arguments: object, processes: int, log: Path) -> None:
    """Run `tests.helpers.<module>` on the CPU, one thread per process, and fail with the end of its log.

    The output goes to a file: a pipe would stay open as long as any process that the run leaves behind.
    """
    group = [] if processes == 1 else ["torch.distributed.run", "--standalone", "--nproc-per-node", processes, "-m"]
    command = [sys.executable, "-m", *group, f"tests.helpers.{module}", *arguments]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    with log.open("w") as file:
        done = subprocess.run([str(word) for word in command], env=environment, stdout=file, stderr=file, timeout=200)
    assert done.returncode == 0, log.read_text()[-3000:]
