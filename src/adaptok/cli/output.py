"""Messages, progress bars, results, and checks of output paths before any work is done."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptok.cli.errors import one_of, plain
from adaptok.cli.options import Messages

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

Advance = Callable[[int], None]
"""Called with the number of units that were just finished."""

TOKEN_SUFFIXES = (".adaptok",)
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
FIGURE_SUFFIXES = (".png", ".pdf", ".svg")

held_outputs = ExitStack()
"""Locks of the outputs of the command that runs. They are released with the context `with held_outputs`."""


def say(messages: Messages, text: str) -> None:
    """Print a message on standard error."""
    if not messages.quiet:
        print(plain(text), file=sys.stderr, flush=True)


def warn(text: str | None) -> None:
    """Print a warning on standard error, if there is one."""
    if text:
        print(plain(f"adaptok: warning: {text}"), file=sys.stderr)


def show(messages: Messages, document: dict[str, Any], text: str) -> None:
    """Print a result on standard output, as JSON or as text for people."""
    if messages.json:
        print(json.dumps(document, default=str))
    elif not messages.quiet:
        print(plain(text))


def list_broken(broken: Mapping[str, str | None], most: int = 50) -> str:
    """List files that cannot be read with their reasons, one on a line, and count those after the first `most`."""
    lines = [f"\n  {path}: {reason}" for path, reason in islice(broken.items(), most)]
    return "".join(lines) + (f"\n  … and {len(broken) - most} more; --json lists all" if len(broken) > most else "")


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align rows of cells in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


@contextmanager
def progress(messages: Messages, title: str, total: int | None, unit: str) -> Iterator[Advance]:
    """Show a progress bar on standard error; yield the function that advances it."""
    from rich.progress import MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        """Units per second."""

        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g}/s", style="progress.data.speed")

    with _bar(messages, MofNCompleteColumn(), TextColumn(unit), Speed(), TimeElapsedColumn()) as bar:
        task = bar.add_task(title, total=total)

        def advance(count: int) -> None:
            bar.start()  # only once there is progress, so that an early error is the only line printed
            bar.advance(task, count)

        yield advance
        bar.update(task, total=bar.tasks[0].completed)


@contextmanager
def download_progress(messages: Messages, title: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show the progress of a download on standard error.

    Yields:
        The function that updates it, with the bytes so far and their total, if that is known.
    """
    from rich.progress import DownloadColumn, TransferSpeedColumn

    with _bar(messages, DownloadColumn(), TransferSpeedColumn()) as bar:
        task = bar.add_task(title, total=None)

        def update(done: int, total: int | None) -> None:
            bar.start()
            bar.update(task, completed=done, total=total)

        yield update


@contextmanager
def _bar(messages: Messages, *columns: ProgressColumn) -> Iterator[Progress]:
    """Provide a progress bar with these columns, which its user starts."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    title = TextColumn("{task.description}")
    console = Console(stderr=True)
    bar = Progress(title, BarColumn(), *columns, TimeRemainingColumn(), console=console, disable=messages.quiet)
    try:
        yield bar
    finally:
        if bar.live.is_started:  # stopping a bar that never started prints an empty line
            bar.stop()


def input_path(path: Path, *, folder_command: str | None = None) -> Path:
    """Check an input file before a model is loaded.

    Args:
        path: the argument.
        folder_command: command that accepts a folder instead, named in the error.

    Raises:
        ValueError: it is a URL, standard input, or a folder.
        FileNotFoundError: it does not exist.
    """
    refuse_streams(path)
    if path.is_dir():
        advice = f"; use 'adaptok {folder_command}' for a collection" if folder_command else ""
        raise ValueError(f"{path}: a folder, expected a file{advice}")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    return path


def refuse_streams(path: Path) -> None:
    """Raise ValueError for URLs, and for the hyphen that stands for a standard stream in other programs."""
    if str(path) == "-":
        raise ValueError("-: standard input and output are not supported; give the name of a file")
    scheme, colon, _ = str(path).partition(":/")
    if colon and len(scheme) > 1 and scheme.isalnum():
        raise ValueError(f"{path}: URLs are not supported; download the file and give its local path")


def one_output(positional: Path | None, option: Path | None, default: Path | None) -> Path | None:
    """The output path: as an argument, as the option --output, or the default.

    Raises:
        ValueError: the argument and the option are both given.
    """
    if positional is not None and option is not None:
        raise ValueError(f"two outputs, {positional} and --output {option}; give one of them")
    return positional or option or default


def output_path(path: Path, force: bool, inputs: Sequence[Path] = (), suffixes: Sequence[str] = ()) -> Path:
    """Check that an output file may and can be written, and lock it until the command ends.

    Args:
        path: the output.
        force: whether an existing file may be overwritten.
        inputs: files that must not be overwritten in any case.
        suffixes: endings of the name that fit what is written; any if empty.

    Raises:
        ValueError: it may not, or cannot, be written.
        OutputInUseError: another process is writing it.
    """
    refuse_streams(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: expected the name of an output file with the suffix {one_of(suffixes)}")
    if any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
        raise ValueError(f"{path}: output and input are the same file; choose another output")
    if path.is_dir():
        raise ValueError(f"{path}: a directory, expected the name of a file to write")
    if not path.parent.exists():
        raise ValueError(f"{path}: cannot be written, as there is no folder {path.parent}; create it first")
    _hold(path)
    if path.exists() and not force:
        raise ValueError(f"{path}: exists already; choose another name, or overwrite it with --force")
    return path


def output_folder(path: Path) -> Path:
    """Lock an output folder until the command ends. It is created, and removed again if it stays empty.

    Raises:
        ValueError: it is a file, or cannot be written.
        OutputInUseError: another process is writing it.
    """
    refuse_streams(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path}: a file, expected a folder to write")
    _hold(path, is_folder=True)
    return path


def _hold(path: Path, is_folder: bool = False) -> None:
    from adaptok.utils.files import WriteError
    from adaptok.utils.output_locks import OutputInUseError, holding_file, holding_folder

    try:
        held_outputs.enter_context(holding_folder(path) if is_folder else holding_file(path))
    except (WriteError, OutputInUseError):
        raise
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def model_output(positional: Path | None, option: Path | None, default: Path, force: bool) -> Path:
    """The model folder to write, checked, and locked until the command ends.

    Raises:
        ValueError: it holds a model that may not be overwritten, or cannot be written.
        OutputInUseError: another process is writing it.
    """
    from adaptok.checkpoints.model_folder import CONFIG_FILE

    folder = one_output(positional, option, default)
    assert folder is not None
    output_folder(folder)
    if (folder / CONFIG_FILE).exists() and not force:
        raise ValueError(f"{folder}: holds a model already; choose another folder, or overwrite it with --force")
    return folder
