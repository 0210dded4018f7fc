"""Kill commands at random moments, finish them, and compare the result with that of an undisturbed run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import traceback
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adaptok.data.manifests import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_entries
from tests.helpers.processes import PROCESSES

MAX_KILLS = 6
"""Largest number of kills before a command is finished."""
MAX_SECONDS = 300.0


class Command(ABC):
    """A command that is killed.

    Args:
        inputs: Folder for what the command reads. It is made by `prepare`.
    """

    name: str

    def __init__(self, inputs: Path) -> None:
        self.inputs = inputs

    @abstractmethod
    def prepare(self) -> None:
        """Write the inputs."""

    @abstractmethod
    def arguments(self, out: Path, rng: random.Random) -> list[object]:
        """The command line that writes to, or below, the folder `out`. It may vary in what changes no result."""

    @abstractmethod
    def parts(self, out: Path) -> dict[str, Any]:
        """What counts as data after a kill. Each part must be one of the undisturbed run."""

    def result(self, out: Path) -> dict[str, Any]:
        """Everything that must equal the undisturbed run in the end."""
        return self.parts(out)


@dataclass
class Report:
    """What happened to a command. Everything that is not as it must be raises an AssertionError."""

    command: str
    kills: int
    finished: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.command}: {self.kills} kills, finished {self.finished} times with equal results,"
            f" {self.seconds:.0f} s"
        )


def crash(command: Command, kills: int, seed: int, scratch: Path) -> Report:
    """Kill a command this often, and finish it after every few kills.

    Raises:
        AssertionError: Something counts as data that is not whole, the command does not finish, or the result differs.
    """
    started = time.monotonic()
    rng = random.Random(f"{command.name}:{seed}")
    command.inputs.mkdir(parents=True)
    command.prepare()
    whole = scratch / "whole"
    begun = time.monotonic()
    finish(command, whole, rng, scratch)
    duration = time.monotonic() - begun
    parts, result, names = command.parts(whole), command.result(whole), media(whole)
    assert result
    done = finished = 0
    while done < kills:
        out = scratch / f"out-{finished}"
        for _ in range(min(kills - done, rng.randint(1, MAX_KILLS))):
            if not killed(command, out, rng, duration, scratch):
                break
            done += 1
            if out.exists():
                assert_whole(command.parts(out), parts, media(out) - names)
        finish(command, out, rng, scratch)
        assert_equal(command.result(out), result)
        assert not media(out) - names, f"leftovers that count as videos or images: {media(out) - names}"
        finished += 1
        shutil.rmtree(out)
    return Report(command.name, done, finished, time.monotonic() - started)


def media(out: Path) -> set[str]:
    """Names of the files that would be taken for videos or images of a collection."""
    if not out.is_dir():
        return set()
    return {str(entry.path.relative_to(out)) for entry in find_entries(out, VIDEO_SUFFIXES | IMAGE_SUFFIXES)}


def assert_whole(actual: dict[str, Any], expected: dict[str, Any], leftovers: set[str]) -> None:
    assert not leftovers, f"leftovers that count as videos or images after a kill: {leftovers}"
    assert actual.keys() <= expected.keys(), f"unknown parts {sorted(actual.keys() - expected.keys())}"
    assert_equal(actual, {name: expected[name] for name in actual})


def assert_equal(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert actual.keys() == expected.keys(), f"{sorted(actual)}, expected {sorted(expected)}"
    different = [name for name, value in actual.items() if not equal(value, expected[name])]
    assert not different, f"different: {different}"


def equal(one: Any, other: Any) -> bool:
    """Whether two values are the same bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    return bool(one == other)


def start(arguments: list[object], log: Path) -> Any:
    """Start a command in a process group of its own, from a server that has imported everything."""
    process = PROCESSES.Process(target=_call, args=([str(word) for word in arguments], log))
    process.start()
    return process


def finish(command: Command, out: Path, rng: random.Random, scratch: Path) -> None:
    """Run a command to its end."""
    log = scratch / "log.txt"
    process = start(command.arguments(out, rng), log)
    process.join(MAX_SECONDS)
    code = process.exitcode
    if code is None:
        kill_group(process)
    assert code == 0, f"exit code {code}: {log.read_text()[-2000:]}"


def killed(command: Command, out: Path, rng: random.Random, duration: float, scratch: Path) -> bool:
    """Start a command and kill it, at a random time or after a change of its files. Return False if it ended before."""
    process = start(command.arguments(out, rng), scratch / "log.txt")
    begun = time.monotonic()
    until = begun + rng.uniform(0, duration)
    if rng.random() < 0.5:
        changes, before = rng.randint(1, 6), snapshot(out)
        until = begun + 2 * duration
        while process.is_alive() and time.monotonic() < until and changes:
            if (now := snapshot(out)) != before:
                changes, before = changes - 1, now
            time.sleep(0.001)
        until = time.monotonic() + rng.uniform(0, 0.02)
    process.join(max(0.0, until - time.monotonic()))
    if not process.is_alive():
        assert process.exitcode == 0, f"exit code {process.exitcode}: {(scratch / 'log.txt').read_text()[-2000:]}"
        return False
    if rng.random() < 0.3:
        process.kill()  # its workers live on for a moment
        process.join()
        kill_group(process)
    else:
        kill_group(process)
    return True


def kill_group(process: Any) -> None:
    """Kill a process and its children."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it has no group yet, or no process is left
        process.kill()
    process.join()


def snapshot(out: Path) -> list[tuple[str, int]]:
    """Names and sizes of all files."""
    result = []
    for folder, _, files in os.walk(out):
        for name in files:
            path = os.path.join(folder, name)
            try:
                result.append((path, os.stat(path).st_size))
            except FileNotFoundError:
                continue
    return sorted(result)


def _call(arguments: list[str], log: Path) -> None:
    os.setsid()
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    torch.set_num_threads(1)
    from adaptok.cli.main import main

    code = 0
    try:
        main(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 99
    os._exit(code)
