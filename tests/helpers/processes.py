"""Processes that tests start, alone or as a group that trains together.

They are forked from a server that has imported everything already, which saves several seconds per process.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["tests.helpers.training", "tests.helpers.generators", "accelerate", "adaptok.cli.parser"]
)


def run_group(target: Callable[..., None], *arguments: Any, processes: int, log: Path, timeout: float = 500) -> None:
    """Call `target` in each process of a group, on the CPU with one thread, and fail with the end of the log.

    Args:
        target: function at the top level of a module.
        log: file for what the processes print.
        timeout: in seconds.
    """
    with socket.socket() as server:
        server.bind(("localhost", 0))
        port = server.getsockname()[1]
    group = []
    for rank in range(processes):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        environment |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
        given = environment if processes > 1 else {}
        group.append(
            PROCESSES.Process(target=_call, args=({k: str(v) for k, v in given.items()}, log, target, arguments))
        )
    for process in group:
        process.start()
    for process in group:
        process.join(timeout)
    for process in group:
        process.kill()
        process.join()
    assert [process.exitcode for process in group] == [0] * processes, log.read_text()[-3000:]


def torchrun(module: str, *arguments: object, processes: int, log: Path) -> None:
    """Run a module of this folder with torchrun. Takes longer than `run_group`, which it is the reference for.

    The output goes to a file: a pipe would stay open as long as any process that the run leaves behind.
    """
    group = ["torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    command = [sys.executable, "-m", *group, "-m", f"tests.helpers.{module}", *arguments]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    with log.open("w") as file:
        done = subprocess.run([str(word) for word in command], env=environment, stdout=file, stderr=file, timeout=500)
    assert done.returncode == 0, log.read_text()[-3000:]


def _call(environment: dict[str, str], log: Path, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment, CUDA_VISIBLE_DEVICES="")
    torch.set_num_threads(1)
    target(*arguments)
    # All files are written. With sharding, threads of torch can abort while the interpreter shuts down, so do not.
    for child in multiprocessing.active_children():
        child.terminate()
    os._exit(0)
