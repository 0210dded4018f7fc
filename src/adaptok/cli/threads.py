"""The number of CPU threads of a command, which is chosen before torch is loaded."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from typing import Any

from adaptok.utils.threads import THREADS_VARIABLES, LoadMeter, choose_threads, let_threads_sleep


def set_threads(command: Any, meter: LoadMeter) -> None:
    """Set the number of CPU threads of this process, and of the processes that it starts.

    That is the value of --threads, or else what the user has set in the environment, or else the choice of
    `choose_threads`. Commands whose results must be the same to the bit in another process set `ignores_load`.

    Args:
        command: the command that is about to run.
        meter: measures the load of the machine.

    Raises:
        ValueError: --threads is out of range.
    """
    if "torch" not in sys.modules:
        let_threads_sleep()
    threads = next(_values(command, "threads"), None)
    if threads is not None and threads < 1:
        raise ValueError(f"--threads {threads}, expected 1 or more")
    if threads is None:
        if any(name in os.environ for name in THREADS_VARIABLES) or "torch" in sys.modules:
            return
        threads = choose_threads(None if getattr(command, "ignores_load", False) else meter)
    else:
        for name in THREADS_VARIABLES[1:]:
            os.environ.pop(name, None)
    os.environ[THREADS_VARIABLES[0]] = str(threads)
    if "torch" in sys.modules:  # it has read the environment already
        import torch

        torch.set_num_threads(threads)


def _values(command: Any, name: str) -> Iterator[Any]:
    """Values of an option in a command and in its groups of options."""
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if field.name == name:
            yield value
        elif dataclasses.is_dataclass(value):
            yield from _values(value, name)
