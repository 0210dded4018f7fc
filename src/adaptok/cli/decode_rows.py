"""Decoding rows of a token dataset, for `adaptok decode`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adaptok.cli.folders import FolderJobs, run_jobs
from adaptok.cli.options import Messages
from adaptok.cli.output import VIDEO_SUFFIXES, output_folder, output_path

if TYPE_CHECKING:
    from adaptok.codec.codec import AdapTok
    from adaptok.codec.token_file import VideoTokens
    from adaptok.data.token_datasets import TokenClip, TokenDataset

Write = Callable[["AdapTok", "VideoTokens", Path], dict[str, Any]]
"""Decodes tokens into a video, and returns a description."""


class Row(NamedTuple):
    """A row of a token dataset, counted from 0 over the shards in the order of their names."""

    dataset: Path
    number: int

    def __str__(self) -> str:
        return f"{self.dataset}, row {self.number}"


def is_token_dataset(path: Path) -> bool:
    """Return whether a path is a shard of a token dataset, or a folder that directly contains shards."""
    return path.suffix == ".parquet" if path.is_file() else any(path.glob("[!.]*.parquet"))


def parse_rows(words: Sequence[str], count: int, dataset: Path) -> list[int]:
    """Return the numbers of rows that are chosen by numbers and ranges, such as "3" and "8-11"; all if there are none.

    Args:
        words: Numbers and ranges, which may also be separated by commas.
        count: Number of rows of the dataset.
        dataset: The dataset, for error messages.

    Raises:
        ValueError: A word is neither, or a row does not exist.
    """
    chosen: list[int] = []
    for word in ",".join(words).split(",") if words else []:
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", word.strip())
        if match is None:
            raise ValueError(f"--rows {word}: expected numbers of rows, or ranges such as 8-11")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last or last >= count:
            raise ValueError(f"--rows {word}: expected 0 to {count - 1}, the rows of {dataset}, in rising order")
        chosen += range(first, last + 1)
    return list(dict.fromkeys(chosen)) if words else list(range(count))


def decode_rows(
    dataset: Path,
    out: Path,
    words: Sequence[str],
    load_codec: Callable[[], AdapTok],
    write: Write,
    messages: Messages,
    *,
    budget: float | None = None,
    any_model: bool = False,
    force: bool = False,
    skip_existing: bool = False,
) -> None:
    """Decode rows of a token dataset, each into a video of its own.

    Args:
        dataset: Shard, or folder of shards.
        out: Folder to write, with videos named by the number of the row and the source; or the video of a single row.
        words: Chosen rows, as for `parse_rows`.
        load_codec: Loads the tokenizer.
        write: Decodes the tokens of a row into a video.
        messages: Form and amount of the output.
        budget: Tokens that a clip is shortened to, which needs scores.
        any_model: Whether tokens of another model are decoded, if their layout fits.
        force: Whether existing videos are overwritten. Otherwise, those of a folder are skipped.
        skip_existing: Whether an existing video of a single row is skipped, too.

    Raises:
        ValueError: A row does not exist, several rows should be written to one file, or the model or the budget does
            not fit the dataset.
        SystemExit: A row could not be decoded (code 1).
    """
    from adaptok.data.token_datasets import TokenDataset
    from adaptok.tokenization.rows import row_tokens

    clips = TokenDataset.open(dataset, scores=budget is not None)
    numbers = parse_rows(words, len(clips), dataset)
    jobs = _find_jobs(clips, dataset, out, numbers, force=force, skip_existing=skip_existing)
    codec = load_codec()

    def read(clip: TokenClip) -> VideoTokens:
        tokens = row_tokens(clips.info, clip)
        return tokens if budget is None else tokens.truncate(budget)

    def work(row: Row, made: Path) -> dict[str, Any]:
        clip = clips[row.number]
        facts = {"row": row.number, "source": clip.source, "start": clip.start, "label": clip.label}
        return {**facts, **write(codec, read(clip), made)}

    if jobs.jobs:  # mistakes that concern all rows are reported once, before any work
        codec.check_tokens(read(clips[jobs.jobs[0][0].number]), any_model=any_model)

    run_jobs(messages, "decoding", jobs, out, work)


def _find_jobs(
    clips: TokenDataset, dataset: Path, out: Path, numbers: Sequence[int], *, force: bool, skip_existing: bool
) -> FolderJobs[Row]:
    if out.suffix.lower() in VIDEO_SUFFIXES:
        if len(numbers) != 1:
            raise ValueError(f"{out}: one video for {len(numbers)} rows, expected a folder, or one row with --rows")
        if not skip_existing:
            output_path(out, force)
        paths = [out]
    elif out.exists() and not out.is_dir():
        raise ValueError(f"{out}: a file, expected a folder or the name of a video")
    else:
        output_folder(out)
        stems = [Path(source).stem for source in clips.table["source"].take(list(numbers)).to_pylist()]
        names = [re.sub(r"[^\w.-]+", "_", stem) for stem in stems]
        paths = [out / f"{number:06d}-{name}.mp4" for number, name in zip(numbers, names, strict=True)]
    rows = [Row(dataset, number) for number in numbers]
    jobs = [(row, path) for row, path in zip(rows, paths, strict=True) if force or not path.exists()]
    return FolderJobs(dataset, jobs, len(rows) - len(jobs))
