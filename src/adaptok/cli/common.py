"""What the commands share: flags, messages, progress and output files."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from adaptok.allocation.policy import Scope
from adaptok.checkpoints.model_folder import CONFIG_FILE
from adaptok.codec.codec import AdapTok
from adaptok.video.geometry import Fit


@dataclass(kw_only=True)
class Computing:
    """Flags of every command that runs a model."""

    model: str | None = None
    """Model folder or hub id (owner/name), of our layout or the official one; the model in the box if not given."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of weights and computation."""
    batch_size: int = 4
    """Clips computed at once."""
    seed: int = 0
    """Of random numbers, where there are any; encoding and decoding use none."""
    json: bool = False
    """Print one JSON object on stdout; messages stay on stderr."""
    quiet: bool = False
    """No progress bars, and no messages but errors and warnings."""

    def load(self) -> AdapTok:
        """The model that the flags ask for."""
        if self.batch_size < 1:
            raise ValueError(f"--batch-size {self.batch_size}, expected 1 or more")
        torch.manual_seed(self.seed)
        return AdapTok.from_pretrained(self.model, device=self.device, dtype=self.dtype)

    def say(self, message: str) -> None:
        """A message on stderr."""
        if not self.quiet:
            print(message, file=sys.stderr)

    def result(self, document: dict[str, Any], text: str) -> None:
        """The result on stdout: as JSON, or for people to read."""
        if self.json:
            print(json.dumps(document, default=str))
        elif not self.quiet:
            print(text)

    def progress(self, title: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """A progress bar of frames."""
        return progress(title, total, "frames", self.quiet)


@dataclass(kw_only=True)
class Common(Computing):
    """Flags of every command that runs a model and writes files."""

    force: bool = False
    """Overwrite output files that exist."""


@dataclass(kw_only=True)
class Choosing:
    """Flags of every command that samples videos and chooses lengths."""

    budget: str | None = None
    """Tokens per clip of 16 frames, on average; half of the model's maximum if neither this nor --target is given."""
    target: float | None = None
    """Instead of a budget: the predicted distortion to reach with the fewest tokens."""
    scope: Scope = "video"
    """What shares the budget: the whole video, each clip, the same block of a batch of clips, or a stream."""
    uniform: bool = False
    """Spend the budget evenly, whatever the scores say; for comparison."""
    fit: Fit = "crop"
    """How frames come to the model's square."""
    fps: float | None = None
    """Frames per second to sample the video at; its own if not given."""


@dataclass(kw_only=True)
class Encoding(Choosing, Common):
    """Flags of every command that encodes a video."""

    start: float = 0.0
    """First second of the video to encode."""
    stop: float | None = None
    """Second of the video to stop at."""

    def part(self) -> dict[str, Any]:
        """Which part of the video is read, and how much at once: arguments of `AdapTok.encode` and `compare`."""
        return {"batch_size": self.batch_size, "start": self.start, "stop": self.stop, "fps": self.fps}


@dataclass(kw_only=True)
class ModelOutput:
    """Flags of every command that writes a model folder."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the stored weights; less than float32 makes another model of it, with another hash."""
    json: bool = False
    """Print one JSON object on stdout."""
    force: bool = False
    """Overwrite a model that is there."""
    quiet: bool = False
    """No messages but errors."""

    def check(self, folder: Path) -> None:
        """Raise ValueError if the folder holds a model that may not be overwritten."""
        if (folder / CONFIG_FILE).exists() and not self.force:
            raise ValueError(f"{folder}: holds a model already; choose another folder, or overwrite it with --force")


class _Speed(ProgressColumn):
    """How many a second, lately."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.3g}/s", style="progress.data.speed")


@contextmanager
def progress(title: str, total: int | None, unit: str, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; gives a function that is called with how many were just finished."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        _Speed(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), disable=quiet)
    task = bar.add_task(title, total=total)

    def advance(count: int) -> None:
        bar.start()  # not before there is progress: an error then stands alone
        bar.advance(task, count)

    try:
        yield advance
        bar.update(task, total=bar.tasks[0].completed)
    finally:
        if bar.live.is_started:  # an unused one would leave an empty line
            bar.stop()


def warn(message: str | None) -> None:
    """A warning on stderr, where there is one."""
    if message:
        print(f"adaptok: warning: {message}", file=sys.stderr)


def output_path(path: Path, force: bool, inputs: Sequence[Path] = ()) -> Path:
    """The path, once it is known that it may and can be written, before any work is done.

    Raises:
        ValueError: it exists and `force` is not set, or it is one of the inputs, or its folder is missing or read-only.
    """
    if any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
        raise ValueError(f"{path}: output and input are the same file; choose another output")
    if path.is_dir():
        raise ValueError(f"{path}: a directory, expected the name of a file to write")
    if path.exists() and not force:
        raise ValueError(f"{path}: exists already; choose another name, or overwrite it with --force")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-")
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror}); choose another place") from None
    os.close(handle)
    os.unlink(name)
    return path


def parse_budgets(values: Sequence[str]) -> list[float]:
    """Budgets from the command line, separated by spaces or commas.

    Raises:
        ValueError: one is not a number.
    """
    budgets = []
    for value in ",".join(values).split(","):
        try:
            budgets.append(float(value))
        except ValueError:
            raise ValueError(f"--budget {value!r}, expected a number of tokens per clip") from None
    return budgets
