"""Run a fuzz target on many inputs, and judge what happens.

Input `index` of a target is a function of the seed and the index alone, so that every failure can be repeated. Three
outcomes are allowed: the input is read, and is what it was before; it is refused by a documented exception, or by the
documented exit code, with a one-line message; or it is read with a warning that says what was lost. Everything else is
a failure: another exception, another result, a message of several lines or with control characters, more than the
limits of time and memory, the end of the process, and connections or processes that an input starts.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")

MAX_SECONDS = 10
"""Largest processor time that an input may take, which other work on the machine does not change."""
MAX_WAIT = 60.0
"""Largest time that an input may take, for inputs that wait for something, in seconds."""
MAX_MEMORY = 2**30
"""Largest growth of the process by one input, in bytes."""
MAX_MESSAGE = 2000
"""Largest length of an error message, in characters. A message repeats what is wrong, not the whole input."""
_BREAK = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_FORBIDDEN = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
"""Audit events that no input may cause."""


class Refused(Exception):
    """An input was refused as documented. The message is that of the error."""


class Failure(AssertionError):
    """An input was treated in a way that is not allowed."""


class Target(ABC):
    """One kind of input.

    `prepare` writes what all inputs are made from to a folder, once. Every process then calls `open` with it, and `run`
    for each input.
    """

    name: str

    @abstractmethod
    def prepare(self, seeds: Path) -> None:
        """Write the undamaged files. The folder exists and is empty."""

    @abstractmethod
    def open(self, seeds: Path) -> None:
        """Read what `prepare` wrote."""

    def warm_up(self) -> None:  # noqa: B027
        """Do what takes long only once, such as imports, so that the first input is not over its time."""

    @abstractmethod
    def run(self, rng: random.Random, folder: Path) -> None:
        """Make an input from random numbers, in an empty folder, and use it.

        Returns if the input was read and the result is right.

        Raises:
            Refused: The input was refused as documented.
            Failure: The result is wrong. Every other exception is a failure, too.
        """


class Outcome(NamedTuple):
    """What happened to one input.

    kind: "read", "refused" or "failed".
    text: The message of a refusal, or the traceback of a failure.
    signature: Where and how it failed; the same for inputs that fail alike.
    """

    kind: str
    text: str = ""
    signature: str = ""


def attempt(allowed: type[Exception] | tuple[type[Exception], ...], call: Callable[..., Result], *args: Any) -> Result:
    """Call a function that may refuse its input by one of these exceptions, with a one-line message."""
    try:
        return call(*args)
    except allowed as error:
        check_message(str(error))
        raise Refused(str(error)) from error


def check_message(message: str, printed: bool = False) -> None:
    """Fail unless a message is one line of a reasonable length, and without control characters if it was printed."""
    if not message.strip():
        raise Failure("an empty error message")
    if found := (_CONTROL if printed else _BREAK).search(message):
        raise Failure(f"the character {found.group()!r} in an error message: {message[:300]!r}")
    if len(message) > MAX_MESSAGE:
        raise Failure(f"an error message of {len(message)} characters: {message[:300]!r}")


def judge(target: Target, seed: int, index: int, folder: Path) -> Outcome:
    """Run a target on one input. `folder` is made anew, and holds the input afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    before = _peak_memory()
    try:
        with _watched():
            target.run(random.Random(f"{target.name}:{seed}:{index}"), folder)
            outcome = Outcome("read")
    except Refused as refusal:
        outcome = Outcome("refused", str(refusal))
    except Exception as error:
        return Outcome("failed", traceback.format_exc(), _signature(error))
    if (growth := _peak_memory() - before) > MAX_MEMORY:
        return Outcome("failed", f"{growth / 2**30:.1f} GiB of memory", "more than 1 GiB of memory")
    return outcome


class _watched:
    """Fail if a connection is opened or a process is started. An audit hook cannot be removed, so there is one."""

    active = False
    installed = False
    events: list[str] = []  # noqa: RUF012

    def __enter__(self) -> None:
        if not _watched.installed:
            sys.addaudithook(_watched.note)
            _watched.installed = True
        _watched.events.clear()
        _watched.active = True

    def __exit__(self, *error: object) -> None:
        _watched.active = False
        if _watched.events:
            raise Failure(f"the input caused {_watched.events[0]}")

    @staticmethod
    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if _watched.active and event in _FORBIDDEN:
            _watched.events.append(f"{event}{arguments!r:.200}")


def _peak_memory() -> int:
    """Return the largest resident memory that the process had so far, in bytes; 0 where it is unknown."""
    try:
        import resource
    except ModuleNotFoundError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _signature(error: BaseException) -> str:
    """Describe an error by its type, its message without numbers and names, and the innermost line of the package."""
    frames = traceback.extract_tb(error.__traceback__)
    package = [frame for frame in frames if f"{os.sep}adaptok{os.sep}" in frame.filename]
    place = package[-1] if package else frames[-1]
    where = f"{Path(place.filename).name}:{place.lineno} {place.name}"
    message = re.sub(r"\d+|/\S+|'[^']*'|\"[^\"]*\"", "…", str(error).split("\n")[0])[:80]
    return f"{type(error).__name__} at {where}: {message}"
