"""Shards written by processes of this machine."""

from __future__ import annotations

import multiprocessing
import multiprocessing.resource_tracker as resource_tracker
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from adaptok.tokenization.shard_writer import ModelSource, ShardWriter

_Message = int | bool | None | Exception
"""Of a worker: clips just done; None, ready for the first shard; whether it wrote the last one; or what went wrong."""


def run_workers(
    out: Path, numbers: Sequence[int], origin: ModelSource, workers: int, advance: Callable[[int], None] | None
) -> int:
    """Write what nobody else writes of these shards; how many that were.

    Raises:
        ChildProcessError: a worker was killed.
        ValueError, OSError, ImportError, RuntimeError: what went wrong in one.
    """
    context = multiprocessing.get_context("spawn")
    team: dict[Connection, SpawnProcess] = {}
    written, todo, size = 0, deque(numbers), min(workers, len(numbers))
    try:
        for index in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, out, _place(origin, index), size), daemon=True)
            with _uninterrupted():
                process.start()
            theirs.close()
            team[ours] = process
        while team:
            for connection in wait(list(team)):
                assert isinstance(connection, Connection)
                message = _receive(connection, team[connection])
                if type(message) is int:
                    if advance is not None:
                        advance(message)
                    continue
                written += message is True
                if todo:
                    connection.send(todo.popleft())
                else:
                    connection.send(None)
                    team.pop(connection).join()
    finally:
        for process in team.values():
            process.terminate()
        for process in team.values():
            process.join()
    return written


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes that are started in it never hear Ctrl-C: the main process does, and ends them."""
    resource_tracker.ensure_running()  # its own start would undo the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _receive(connection: Connection, process: SpawnProcess) -> _Message:
    try:
        message: _Message = connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise ChildProcessError(
            f"worker {process.pid} ended with exit code {process.exitcode}, killed or out of memory; finished shards"
            " are kept, start again to go on, with fewer --workers where memory is short"
        ) from None
    if isinstance(message, Exception):
        raise message
    return message


def _place(origin: ModelSource, index: int) -> ModelSource:
    """Workers take the GPUs in turn."""
    if origin.device in ("auto", "cuda") and torch.cuda.is_available():
        return replace(origin, device=f"cuda:{index % torch.cuda.device_count()}")
    return origin


def _work(connection: Connection, out: Path, origin: ModelSource, workers: int) -> None:
    """Write shard after shard, as they are dealt, until there is none, or nobody to deal."""
    torch.set_num_threads(max(1, cores() // workers))
    try:
        writer = ShardWriter.open(out, origin)
        connection.send(None)
        while (number := connection.recv()) is not None:
            connection.send(writer.write(number, connection.send))
    except (EOFError, ConnectionError):
        pass  # the main process was killed; its locks and ours end with us
    except Exception as error:
        connection.send(_portable(error))


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _portable(error: Exception) -> Exception:
    """An error that can be sent: of a kind that is told in a line, or with all that is known."""
    for kind in (FileNotFoundError, OSError, ImportError, ValueError):
        if isinstance(error, kind):
            where = f"{error.filename}: " if isinstance(error, OSError) and error.filename is not None else ""
            return kind(f"{where}{(isinstance(error, OSError) and error.strerror) or error}")
    return RuntimeError(traceback.format_exc())
