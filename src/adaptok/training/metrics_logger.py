"""Metrics of a run: a JSON line each, trackers, and lines of text with the time left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator

from adaptok.utils.files import replacing

SHOWN_FIRST = ("loss", "psnr", "lr", "clips_per_second")


@dataclass(frozen=True)
class LogRecord:
    """Metrics of a step. Its text is a line such as "step 5/500, loss 0.123, ..., ETA 0:12:03"."""

    step: int
    """Number of steps done."""
    max_steps: int
    """Number of steps of the whole run."""
    values: Mapping[str, float]
    """Metrics by name."""
    eta_seconds: float | None = None
    """Estimated time to the end of the run, if known."""

    def __str__(self) -> str:
        names = sorted(self.values, key=lambda n: SHOWN_FIRST.index(n) if n in SHOWN_FIRST else len(SHOWN_FIRST))
        parts = [f"step {self.step}/{self.max_steps}", *(f"{name} {self.values[name]:.4g}" for name in names)]
        if self.eta_seconds is not None:
            parts.append(f"ETA {timedelta(seconds=round(self.eta_seconds))}")
        return ", ".join(parts)


class MetricsLogger:
    """Writer of the metrics of a run. Only the main process writes.

    Args:
        path: `metrics.jsonl` of the run.
        accelerator: sends metrics to the configured trackers.
        step: number of steps done. Lines of later steps, which will be repeated, are removed from the file.
        max_steps: number of steps of the run.
        listener: called with each record on the main process.
    """

    def __init__(
        self,
        path: Path,
        accelerator: Accelerator,
        step: int,
        max_steps: int,
        listener: Callable[[LogRecord], None] | None = None,
    ) -> None:
        self.path, self.accelerator, self.max_steps, self.listener = path, accelerator, max_steps, listener
        self._first_step, self._started = step, time.monotonic()
        if accelerator.is_main_process:
            self._truncate(step)
        accelerator.init_trackers("adaptok", config=None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the metrics of a step."""
        if not self.accelerator.is_main_process:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.accelerator.log(dict(values), step=step)
        if self.listener is not None:
            self.listener(LogRecord(step, self.max_steps, values, self._seconds_left(step)))

    def _seconds_left(self, step: int) -> float | None:
        done = step - self._first_step
        return (time.monotonic() - self._started) / done * (self.max_steps - step) if done else None

    def _truncate(self, step: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:  # incomplete line of an interrupted run
                continue
        with replacing(self.path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
