"""Commands over all files of a folder: one progress bar, failures listed at the end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from adaptok.cli.errors import plain
from adaptok.cli.options import Messages
from adaptok.cli.output import output_folder, progress, show

InputT = TypeVar("InputT")
Work = Callable[[InputT, Path], dict[str, Any]]
"""Makes a file from an input, and returns a description of the result."""


@dataclass(frozen=True)
class FolderJobs(Generic[InputT]):
    """Files of a folder, or other inputs, and what is made from each.

    Args:
        folder: The folder that is read.
        jobs: Pairs of an input, whose text is shown, and an output.
        skipped: Number of further inputs whose outputs exist.
    """

    folder: Path
    jobs: list[tuple[InputT, Path]]
    skipped: int


def find_jobs(
    folder: Path, out: Path | None, list_inputs: Callable[[Path], list[Path]], suffix: str, *, force: bool = False
) -> FolderJobs[Path]:
    """List the inputs of a folder and its sub-folders, which are mirrored in the output folder.

    Args:
        folder: Folder to read.
        out: Folder to write, which is locked until the command ends; None if nothing is written.
        list_inputs: Lists the inputs of a folder: files, or folders that stand for one video.
        suffix: Suffix of the outputs.
        force: Whether existing outputs are made again.

    Raises:
        ValueError: The folder has no input, or the output is a file or cannot be written.
        OutputInUseError: Another process is writing the output.
    """
    if out is not None and ((out.exists() and not out.is_dir()) or out.suffix == suffix):
        raise ValueError(f"{out}: the name of a file, expected a folder to write, as {folder} is one")
    inputs = list_inputs(folder)
    names = [path.relative_to(folder) for path in inputs]
    made = [
        Path(f"{name}{suffix}") if path.is_dir() else name.with_suffix(suffix)
        for path, name in zip(inputs, names, strict=True)
    ]
    uses = Counter(made)
    if out is not None:
        output_folder(out)
    place = out or folder
    outputs = [place / (new if uses[new] == 1 else f"{name}{suffix}") for name, new in zip(names, made, strict=True)]
    again = force or out is None
    jobs = [(path, output) for path, output in zip(inputs, outputs, strict=True) if again or not output.exists()]
    return FolderJobs(folder, jobs, len(inputs) - len(jobs))


def run_jobs(messages: Messages, title: str, jobs: FolderJobs[InputT], out: Path | None, work: Work[InputT]) -> None:
    """Work on all files, whichever of them fail, and report.

    Raises:
        SystemExit: A file failed (code 1).
    """
    from adaptok.cli.main import FAILURE, describe

    results: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    with progress(messages, title, len(jobs.jobs), "files") as advance:
        for path, made in jobs.jobs:
            try:
                if out is not None:
                    made.parent.mkdir(parents=True, exist_ok=True)
                results.append({"input": str(path), **work(path, made)})
            except Exception as error:
                failures.append({"input": str(path), "error": describe(error)})
            advance(1)
    for failure in failures:
        text = failure["error"]
        name = "" if failure["input"] in text else f"{failure['input']}: "
        print(plain(f"adaptok: error: {name}{text}"), file=sys.stderr)
    document = {
        "folder": str(jobs.folder),
        "out": None if out is None else str(out),
        "done": len(results),
        "skipped": jobs.skipped,
        "failed": len(failures),
        "results": results,
        "failures": failures,
    }
    show(messages, document, _summary(jobs, out, results, len(failures)))
    if failures:
        raise SystemExit(FAILURE)


def _summary(jobs: FolderJobs[Any], out: Path | None, results: list[dict[str, Any]], failed: int) -> str:
    parts = [f"{len(results)} files done"]
    if jobs.skipped:
        parts.append(f"{jobs.skipped} skipped, as their outputs exist (--force overwrites them)")
    if failed:
        parts.append(f"{failed} failed, listed above")
    if cropped := sum(result.get("dropped_area", 0) > 0 for result in results):
        parts.append(f"{cropped} lost what --fit crop drops")
    return f"{out or jobs.folder}: {', '.join(parts)}"
