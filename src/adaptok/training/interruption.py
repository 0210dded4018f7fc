"""Signals during training: a run that is asked to stop saves a checkpoint first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TrainingInterrupted(KeyboardInterrupt):
    """A run was stopped by a signal after it had saved a checkpoint. The message says where it will resume."""

    @classmethod
    def after_step(cls, signal_name: str | None, step: int, steps: int) -> TrainingInterrupted:
        """Create the exception of a run of `steps` that stopped after `step` of them.

        Args:
            signal_name: signal that this process received. None if another process received one.
            step, steps: number of steps taken, and of the whole run.
        """
        name = signal_name or "a signal"
        if step < steps:
            return cls(
                f"interrupted by {name} after step {step} of {steps}; a checkpoint is saved, and the same command"
                f" resumes with step {step + 1}"
            )
        return cls(
            f"interrupted by {name} after the last step; a checkpoint is saved, and the same command validates and"
            " exports the model"
        )


class _BodyInterrupted(BaseException):
    """Ends the body of `StopSignals.interruptible`."""


class StopSignals:
    """Context in which SIGINT and SIGTERM set `received` instead of ending the process. A second signal raises
    KeyboardInterrupt.

    Signals can only be handled in the main thread; elsewhere, the context has no effect.

    Attributes:
        received: name of the signal that was received, or None.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._interruptible = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Context whose body may take long and can be done again: the first signal ends it early."""
        try:
            self._interruptible = True
            if self.received is None:
                yield
        except _BodyInterrupted:
            pass
        finally:
            self._interruptible = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        if self._interruptible:
            raise _BodyInterrupted


def ignore_signals(worker: int) -> None:
    """Leave signals to the training process. For processes that read data, which end with it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
