"""Commands over all files of a folder: one progress bar, failures listed at the end."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from adaptok.cli.options import Messages
from adaptok.cli.output import progress, show

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
    folder: Path, out: Path, suffixes: Collection[str], suffix: str, *, force: bool = False
) -> FolderJobs[Path]:
    """List the files of a folder and its sub-folders, which are mirrored in the output folder.

    Args:
        folder: Folder to read.
        out: Folder to write.
        suffixes: Suffixes of the files that are taken.
        suffix: Suffix of the outputs.
        force: Whether existing outputs are made again.

    Raises:
        ValueError: The folder has no such file, or the output is a file.
    """
    if (out.exists() and not out.is_dir()) or out.suffix == suffix:
        raise ValueError(f"{out}: the name of a file, expected a folder to write, as {folder} is one")
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in suffixes and path.is_file() and not path.name.startswith(".")
    ]
    if not files:
        raise ValueError(f"{folder}: no file with a suffix of {', '.join(sorted(suffixes))} in it, expected some")
    names = [path.relative_to(folder) for path in files]
    uses = Counter(name.with_suffix(suffix) for name in names)
    outputs = [
        out / (name.with_suffix(suffix) if uses[name.with_suffix(suffix)] == 1 else f"{name}{suffix}") for name in names
    ]
    jobs = [(path, made) for path, made in zip(files, outputs, strict=True) if force or not made.exists()]
    return FolderJobs(folder, jobs, len(files) - len(jobs))


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
        print(f"adaptok: error: {name}{text}", file=sys.stderr)
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
