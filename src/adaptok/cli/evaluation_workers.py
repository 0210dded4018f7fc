"""Processes that share an evaluation: worker processes on this machine, or those of torchrun."""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptok.cli.output import progress

if TYPE_CHECKING:
    import torch

    from adaptok.evaluation.partial_results import PartialResults, Task

_WAIT = 60.0
"""Seconds between looks at the results of other processes."""


def pick_process_device(name: str) -> torch.device:
    """The device of this process: with several processes, each has a GPU of its own where there are any."""
    import torch

    from adaptok.utils.devices import pick_device

    if name == "auto" and torch.cuda.is_available():
        name = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"
    return pick_device(name)


def measure(command: Any, folder: Path, task: Task, title: str) -> PartialResults | None:
    """Measure everything in the plan of an evaluation, together with the other processes.

    Args:
        command: the evaluation command. Worker processes call its method `plan`.
        folder: folder where the processes share their results.
        task: the evaluation, with its plan.
        title: name of the work, for the progress bar and for `plan`.

    Returns:
        All results, or None in a process of torchrun that is not the first.
    """
    from adaptok.evaluation.partial_results import PartialResults

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and command.run_options.output is None:
        raise ValueError("several processes share their results in the folder of the report; give --output")
    if rank:
        results = PartialResults(folder, task.plan, wait=_WAIT)
        results.measure(task, rank, world)
        return None
    results = PartialResults(folder, task.plan, force=command.run_options.force)
    children = _start_workers(command, folder, title) if world == 1 and command.run_options.workers > 1 else []
    processes = world if world > 1 else len(children) + 1
    try:
        with progress(command.messages, title, len(task.plan.videos), "videos") as advance:
            results.measure(task, 0, processes, advance)
            results.wait(advance, lambda: _check_alive(children))
    finally:
        for child in children:
            child.terminate() if child.is_alive() and results.missing() else child.join()
    return results


def _start_workers(command: Any, folder: Path, title: str) -> list[BaseProcess]:
    _divide_threads(command)
    context = multiprocessing.get_context("spawn")
    workers = range(1, command.run_options.workers)
    children = [context.Process(target=_work, args=(command, rank, folder, title)) for rank in workers]
    for child in children:
        child.start()
    return list(children)


def _divide_threads(command: Any) -> None:
    """Divide the threads of the command among the processes."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // command.run_options.workers))


def _work(command: Any, rank: int, folder: Path, title: str) -> None:
    """Run one worker process. Errors are printed in one line, as by the first process."""
    try:
        _work_on(command, rank, folder, title)
    except KeyboardInterrupt:
        sys.exit(1)
    except (ValueError, OSError, ImportError) as error:
        print(f"adaptok: error: worker {rank}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


def _work_on(command: Any, rank: int, folder: Path, title: str) -> None:
    from adaptok.evaluation.partial_results import PartialResults

    _divide_threads(command)
    os.environ["LOCAL_RANK"] = str(rank)
    quiet = replace(command, messages=replace(command.messages, quiet=True))
    evaluation = quiet.plan(title, quiet=True)
    PartialResults(folder, evaluation.plan, wait=_WAIT).measure(evaluation, rank, command.run_options.workers)


def _check_alive(children: list[BaseProcess]) -> None:
    for child in children:
        if child.exitcode:
            raise RuntimeError("a worker process failed (its error is above); run the command again to resume")
