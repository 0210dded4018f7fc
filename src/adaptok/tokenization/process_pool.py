"""Writing shards in several processes of this machine."""

from __future__ import annotations

import multiprocessing
import multiprocessing.resource_tracker as resource_tracker
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import NamedTuple

import torch

from adaptok.tokenization.shard_writer import ModelReference, ShardWriter


class _Progress(NamedTuple):
    """Message of a worker that has processed clips."""

    clips: int


class _Ready(NamedTuple):
    """Message of a worker that waits for the next shard, and whether it wrote the last one."""

    wrote: bool


_Message = _Progress | _Ready | Exception
"""Message of a worker. An exception ends it."""


def run_workers(
    out: Path, numbers: Sequence[int], reference: ModelReference, workers: int, progress: Callable[[int], None] | None
) -> int:
    """Write the shards that no other process is writing, and return their number.

    Raises:
        ChildProcessError: A worker was killed.
        ValueError, OSError, ImportError, RuntimeError: The error of a worker.
    """
    running: dict[Connection, SpawnProcess] = {}
    remaining, written = deque(numbers), 0
    try:
        count = min(workers, len(numbers))
        threads = max(1, torch.get_num_threads() // count)
        for index in range(count):
            connection, process = _start_worker(out, _assign_device(reference, index), threads)
            running[connection] = process
        while running:
            for worker in wait(list(running)):
                assert isinstance(worker, Connection)
                message = _receive(worker, running[worker])
                if isinstance(message, _Progress):
                    if progress is not None:
                        progress(message.clips)
                    continue
                written += message.wrote
                if remaining:
                    worker.send(remaining.popleft())
                else:
                    worker.send(None)
                    running.pop(worker).join()
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()
    return written


def _start_worker(out: Path, reference: ModelReference, threads: int) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, out, reference, threads), daemon=True)
    with _blocked_interrupts():
        process.start()
    theirs.close()
    return ours, process


@contextmanager
def _blocked_interrupts() -> Iterator[None]:
    """Block Ctrl-C in processes started inside. The main process receives it and terminates them."""
    resource_tracker.ensure_running()  # starting it later would reset the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(connection: Connection, process: SpawnProcess) -> _Progress | _Ready:
    try:
        message: _Message = connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise ChildProcessError(
            f"worker {process.pid} ended with exit code {process.exitcode}, killed or out of memory; finished shards"
            " are kept, run again to resume, with fewer --workers if memory is short"
        ) from None
    if isinstance(message, Exception):
        raise message
    return message


def _assign_device(reference: ModelReference, index: int) -> ModelReference:
    """Distribute workers over the GPUs."""
    if reference.device in ("auto", "cuda") and torch.cuda.is_available():
        return replace(reference, device=f"cuda:{index % torch.cuda.device_count()}")
    return reference


def _work(connection: Connection, out: Path, reference: ModelReference, threads: int) -> None:
    """Write the shards received from the main process, until it sends None or ends."""
    torch.set_num_threads(threads)
    try:
        writer = ShardWriter.open(out, reference)
        wrote = False
        connection.send(_Ready(wrote))
        while (number := connection.recv()) is not None:
            wrote = writer.write(number, lambda clips: connection.send(_Progress(clips)))
            connection.send(_Ready(wrote))
    except (EOFError, ConnectionError):
        pass  # the main process was killed; our locks end with this process
    except Exception as error:
        connection.send(_to_picklable(error))


def _to_picklable(error: Exception) -> Exception:
    """Convert an error to a built-in type. Unexpected errors keep their traceback as text."""
    for kind in (FileNotFoundError, OSError, ImportError, ValueError):
        if isinstance(error, kind):
            where = f"{error.filename}: " if isinstance(error, OSError) and error.filename is not None else ""
            return kind(f"{where}{(isinstance(error, OSError) and error.strerror) or error}")
    return RuntimeError(traceback.format_exc())
