"""Run fuzz targets in processes that may hang, crash or take all memory without ending the run.

The processes are forked from this one, which has imported what takes long, but not pyarrow, whose threads do not
survive a fork. Targets are therefore imported in the processes.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from tests.fuzz.harness import MAX_SECONDS, MAX_WAIT, Outcome, judge
from tests.fuzz.targets import load_target

SAVED_PER_SIGNATURE = 3
MAX_PREPARATION = 300.0
"""Largest time for the undamaged files of a target, in seconds."""
MEMORY_RESERVE = 4 * 2**30
"""Address space that a process may use beyond that at its start, in bytes. Where Python or a library would allocate
more, it raises a MemoryError, which is a failure of the input and does no harm to the machine."""
FORK = multiprocessing.get_context("fork")


@dataclass
class Report:
    """What happened to the inputs of one target."""

    target: str
    seed: int
    inputs: int = 0
    read: int = 0
    seconds: float = 0.0
    slowest: tuple[float, int] = (0.0, 0)
    """Seconds and index of the slowest input."""
    refusals: Counter[str] = field(default_factory=Counter)
    """Number of inputs by message, without numbers."""
    failures: dict[str, list[int]] = field(default_factory=dict)
    """Indices of the inputs by signature."""

    @property
    def failed(self) -> int:
        """Number of inputs that failed."""
        return sum(map(len, self.failures.values()))

    def __str__(self) -> str:
        refused = sum(self.refusals.values())
        lines = [
            f"{self.target}: {self.inputs} inputs in {self.seconds:.0f} s, {refused} refused, {self.read} read,"
            f" {self.failed} failed; the slowest took {self.slowest[0]:.1f} s (number {self.slowest[1]})"
        ]
        for signature, indices in sorted(self.failures.items(), key=lambda item: -len(item[1])):
            lines += [
                f"  {len(indices)} x {signature}",
                f"    repeat with: python -m tests.fuzz {self.target} --seed {self.seed} --repeat {indices[0]}",
            ]
        return "\n".join(lines)


class Worker:
    """A process that runs one input at a time."""

    def __init__(self, target: str, seeds: Path, folder: Path, seed: int) -> None:
        self.folder = folder
        self.arguments = (target, seeds, folder, seed)
        self.index: int | None = None
        self.deadline = 0.0
        self.started = 0.0
        self.start()

    def start(self) -> None:
        self.connection, other = FORK.Pipe()
        self.process = FORK.Process(target=_work, args=(*self.arguments, other), daemon=True)
        self.process.start()
        other.close()
        try:
            self.connection.recv()  # ready
        except EOFError:
            raise RuntimeError("a process cannot open the undamaged files; the traceback is above") from None

    def send(self, index: int) -> None:
        """Begin an input."""
        self.index, self.started = index, time.monotonic()
        self.deadline = self.started + MAX_WAIT
        self.connection.send(index)

    def receive(self) -> Outcome:
        """Return the outcome of the input, which has ended or is over its time."""
        try:
            if self.connection.poll():
                result: Outcome = self.connection.recv()
                return result
            self.process.kill()
            outcome = Outcome("failed", f"no end after {time.monotonic() - self.started:.0f} s", "no end")
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            text = "too much processor time" if code == -signal.SIGXCPU else f"the process ended with {code}"
            outcome = Outcome("failed", text, text)
        self.process.join()
        self.start()
        return outcome

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def run(
    target: str,
    scratch: Path,
    save: Path,
    *,
    seed: int,
    count: int | None = None,
    minutes: float | None = None,
    workers: int = 1,
    on_failure: Callable[[int, Outcome], None] = lambda index, outcome: None,
) -> Report:
    """Run a target on `count` inputs, or for some minutes.

    Args:
        scratch: Folder for the files of the run.
        save: Folder for the inputs that fail, which is created when there is one.
        on_failure: Called with the index and the outcome of each input that fails.
    """
    seeds = scratch / target / "seeds"
    prepare(target, seeds)
    report, started = Report(target, seed), time.monotonic()
    team = [Worker(target, seeds, scratch / target / str(number), seed) for number in range(workers)]
    indices = _indices(count, None if minutes is None else started + 60 * minutes)
    for worker in team:
        _next(worker, indices)
    try:
        while busy := [worker for worker in team if worker.index is not None]:
            for worker in _finished(busy):
                index, outcome = worker.index, worker.receive()
                assert index is not None
                _note(report, index, outcome, time.monotonic() - worker.started)
                if outcome.kind == "failed":
                    if len(report.failures[outcome.signature]) <= SAVED_PER_SIGNATURE:
                        _save(worker.folder, save / f"{target}-{seed}-{index}", outcome)
                    on_failure(index, outcome)
                _next(worker, indices)
    finally:
        for worker in team:
            worker.stop()
        shutil.rmtree(scratch / target, ignore_errors=True)
    report.seconds = time.monotonic() - started
    return report


def prepare(target: str, seeds: Path) -> None:
    """Write the undamaged files, in a process of its own, so that the processes that run inputs start alike."""
    seeds.mkdir(parents=True)
    process = FORK.Process(target=_prepare, args=(target, seeds), daemon=True)
    process.start()
    process.join(MAX_PREPARATION)
    process.kill()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the undamaged files of {target} cannot be made; the traceback is above")


def _prepare(target: str, seeds: Path) -> None:
    torch.set_num_threads(1)
    load_target(target).prepare(seeds)


def _work(name: str, seeds: Path, folder: Path, seed: int, connection: Connection) -> None:
    torch.set_num_threads(1)
    target = load_target(name)
    target.open(seeds)
    target.warm_up()
    _limit_memory()
    parent = os.getppid()
    connection.send("ready")
    while True:
        while not connection.poll(1.0):
            if os.getppid() != parent:  # it was killed, and other processes hold its end of the connection
                return
        index = connection.recv()
        limit_time()
        connection.send(judge(target, seed, index, folder))


def limit_time() -> None:
    """End this process by SIGXCPU if it takes more processor time than an input may."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + MAX_SECONDS, hard))


def _limit_memory() -> None:
    pages = Path("/proc/self/statm")
    if pages.exists():
        size = int(pages.read_text().split()[0]) * resource.getpagesize() + MEMORY_RESERVE
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _indices(count: int | None, deadline: float | None) -> Iterator[int]:
    index = 0
    while (count is None or index < count) and (deadline is None or time.monotonic() < deadline):
        yield index
        index += 1


def _next(worker: Worker, indices: Iterator[int]) -> None:
    index = next(indices, None)
    if index is None:
        worker.index = None
    else:
        worker.send(index)


def _finished(busy: list[Worker]) -> list[Worker]:
    """Wait for workers that have an outcome or are over their time."""
    patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
    ready: list[Any] = wait([worker.connection for worker in busy], patience)
    now = time.monotonic()
    return [worker for worker in busy if worker.connection in ready or worker.deadline <= now]


def _note(report: Report, index: int, outcome: Outcome, seconds: float) -> None:
    report.inputs += 1
    report.slowest = max(report.slowest, (seconds, index))
    if outcome.kind == "read":
        report.read += 1
    elif outcome.kind == "refused":
        report.refusals[re.sub(r"/[^\s:]*/|\d+", "#", outcome.text)[:160]] += 1
    else:
        report.failures.setdefault(outcome.signature, []).append(index)


def _save(folder: Path, target: Path, outcome: Outcome) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target, symlinks=True)
    (target / "failure.txt").write_text(outcome.text, encoding="utf-8", errors="backslashreplace")
