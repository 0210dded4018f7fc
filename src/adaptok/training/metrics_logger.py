"""Metrics of a run: a JSON line each, trackers, and lines of text with the time left."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from adaptok.config.training import AnyConfig, dump_config
from adaptok.utils.extras import missing, require
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
        run: folder of the run, which gets `metrics.jsonl`.
        accelerator: sends metrics to the configured trackers.
        step: number of steps done. Lines of later steps, which will be repeated, are removed from the file.
        max_steps: number of steps of the run.
        validated: last step whose validation is complete. Results of later ones, which are repeated, are removed, too.
        listener: called with each record on the main process.
    """

    def __init__(
        self,
        run: Path,
        accelerator: Accelerator,
        step: int,
        max_steps: int,
        validated: int,
        listener: Callable[[LogRecord], None] | None = None,
    ) -> None:
        self.run, self.path = run, run / "metrics.jsonl"
        self.accelerator, self.max_steps, self.listener = accelerator, max_steps, listener
        self._started, self._first_step = time.monotonic(), step
        if accelerator.is_main_process:
            self._truncate(step, validated)

    def start_trackers(self, config: AnyConfig) -> None:
        """Start the trackers of a run, or resume its tracker runs, and send them the configuration."""
        if not config.trackers:
            return
        options: dict[str, Any] = {}
        if "tensorboard" in config.trackers and self._first_step:
            options["tensorboard"] = {"purge_step": self._first_step + 1}  # hides steps that are repeated
        if "wandb" in config.trackers and self.accelerator.is_main_process:
            options["wandb"] = {"id": self._wandb_id(), "resume": "allow", "name": self.run.name, "dir": str(self.run)}
        self.accelerator.init_trackers("adaptok", config=None, init_kwargs=options)
        if not self.accelerator.is_main_process:
            return
        values = config.model_dump(mode="json")
        if "wandb" in config.trackers:
            self.accelerator.get_tracker("wandb", unwrap=True).config.update(values, allow_val_change=True)
        if "tensorboard" in config.trackers and not self._first_step:
            _write_hyperparameters(self.accelerator.get_tracker("tensorboard", unwrap=True), config)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the metrics of a step. Values that are not finite, after an overflow in float16, are left out."""
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        if not self.accelerator.is_main_process or not values:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        self.accelerator.log({_tag(name): value for name, value in values.items()}, step=step)
        self._show(step, values)

    def show_first(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        """Pass the loss to the listener after the first step of this process, to give an early estimate of the time."""
        if self.accelerator.is_main_process and step == self._first_step + 1:
            self._show(step, {"loss": metrics["loss"].item()})

    def log_image(self, step: int, path: Path | None) -> None:
        """Send a PNG file to the trackers."""
        if not self.accelerator.is_main_process or path is None:
            return
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        for tracker in self.accelerator.trackers:
            tracker.log_images({"samples": pixels[None]}, step=step, **_IMAGE_OPTIONS.get(tracker.name, {}))

    def _show(self, step: int, values: Mapping[str, float]) -> None:
        if self.listener is not None:
            self.listener(LogRecord(step, self.max_steps, values, self._seconds_left(step)))

    def _seconds_left(self, step: int) -> float | None:
        done = step - self._first_step
        return (time.monotonic() - self._started) / done * (self.max_steps - step) if done else None

    def _wandb_id(self) -> str:
        """Return the id of the run on wandb, which is chosen once."""
        path = self.run / "wandb-id.txt"
        if not self._first_step or not path.exists():
            with replacing(path) as temporary:
                temporary.write_text(secrets.token_hex(4), encoding="utf-8")
        return path.read_text(encoding="utf-8").strip()

    def _truncate(self, step: int, validated: int) -> None:
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                values = json.loads(line)
                is_validation = any(name.startswith("validation_") for name in values)
                if values["step"] <= (validated if is_validation else step):
                    kept.append(line + "\n")
            except ValueError:  # incomplete line of an interrupted run
                continue
        with replacing(self.path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


_IMAGE_OPTIONS: dict[str, dict[str, Any]] = {"tensorboard": {"dataformats": "NHWC"}}


def check_trackers(trackers: Sequence[str]) -> None:
    """Raise ImportError if the package of a tracker is missing."""
    for name, extra in (("tensorboard", "train"), ("wandb", "wandb")):
        if name in trackers:
            require(name, extra=extra, purpose=f"trackers {name}")
    if "tensorboard" in trackers:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:  # accelerate would look for tensorboardX instead, and name that
            raise missing("tensorboard", extra="train", purpose="trackers tensorboard", reason=str(error)) from None


def _tag(name: str) -> str:
    """Return the name of a metric in trackers, which group metrics by what precedes the slash."""
    return f"validation/{name.removeprefix('validation_')}" if name.startswith("validation_") else f"train/{name}"


def _write_hyperparameters(writer: Any, config: AnyConfig) -> None:
    """Write the configuration to TensorBoard: as text, and as hyperparameters for its table of runs."""
    from torch.utils.tensorboard.summary import hparams

    writer.add_text("configuration", f"```yaml\n{dump_config(config)}```")
    for summary in hparams(dict(_flatten(config.model_dump(mode="json"))), {"train/loss": None}):
        writer.file_writer.add_summary(summary)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str | int | float | bool) else json.dumps(value)
