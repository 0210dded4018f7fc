"""Tokenization of video collections into token datasets.

`tokenize` plans the shards (`plan`), distributes the missing ones to workers (`process_pool`, or `ray_cluster`), and
collects the results. A shard depends only on the plan and the model (`shard_writer`). It is locked while it is written,
so that interrupted runs can resume and several machines can work on one dataset.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from adaptok.codec.codec import AdapTok
from adaptok.config.choices import Engine
from adaptok.data.token_datasets import read_notes
from adaptok.tokenization.options import TokenOptions
from adaptok.tokenization.plan import TokenPlan, find_unplanned, make_plan, shard_path
from adaptok.tokenization.shard_reader import check_shards
from adaptok.tokenization.shard_writer import ModelReference, ShardWriter
from adaptok.utils.files import claiming, sweep

__all__ = ["Engine", "TokenOptions", "TokenPlan", "TokenizationResult", "tokenize"]

BROKEN_FILE = "broken.json"
Progress = Callable[[int], None]
_POLL_SECONDS = 0.5  # between checks for shards that another process is writing


@dataclass(frozen=True)
class TokenizationResult:
    """A complete token dataset.

    Attributes:
        out: Folder of the dataset.
        clips, tokens: Totals over all shards.
        shards: Number of shards.
        written: Number of shards written by this call. The others existed or were written by another process.
        broken: Reason for each file that could not be read, or only in part.
        unplanned: Files added to the collection after planning. They are not in the dataset.
    """

    out: Path
    clips: int
    tokens: int
    shards: int
    written: int
    broken: dict[str, str]
    unplanned: list[str]


def tokenize(
    source: str | Path,
    out: str | Path,
    model: AdapTok | str | Path | None = None,
    options: TokenOptions | None = None,
    *,
    root: str | Path | None = None,
    device: str = "auto",
    dtype: str = "float32",
    workers: int = 1,
    engine: Engine = "local",
    on_open: Progress | None = None,
    on_start: Callable[[TokenPlan, int], Progress] | None = None,
) -> TokenizationResult:
    """Write a token dataset of all videos of a collection, or resume writing it.

    Args:
        source: A folder, searched recursively, a list of files (.csv, .txt), or an index of `adaptok data index`.
        out: Folder of the dataset. It must be new, empty, or hold the same dataset.
        model: Model folder or hub id. None is the bundled model. An `AdapTok` is accepted for one local worker.
        options: How clips are sampled and their lengths chosen.
        root: Folder of the relative paths of a list. None is the folder of the list.
        device, dtype: As for `AdapTok.from_pretrained`.
        workers: Number of processes. Each has its own model and decodes with one thread.
        engine: "local" runs on this machine. "ray" runs on the connected Ray cluster, or starts one on this machine;
            all of its machines must see `source` and `out` under the same paths.
        on_open: Called with the number of files just opened while planning.
        on_start: Called with the plan and the number of clips left. The returned function is called with the number of
            clips just processed.

    Raises:
        FileNotFoundError: The source or model does not exist, or a planned file was removed.
        ValueError: An argument is out of its range, no video is readable, `out` holds something else or was begun
            with other arguments, which the message names, a planned file or its label was changed, or a shard in `out`
            is damaged or of another dataset.
        ChildProcessError: A worker was killed.
    """
    _check_workers(model, workers, engine)
    out = Path(out)
    reference = ModelReference.create(model, device, dtype)
    codec = model if isinstance(model, AdapTok) else reference.load()
    sweep(out)
    try:
        plan = make_plan(source, out, codec, options or TokenOptions(), root=root, on_open=on_open)
        check_shards(plan, out)
        writer = ShardWriter(codec, plan, out) if engine == "local" and workers == 1 else None
        del codec  # worker processes load their own
        missing = _missing(out, range(len(plan.shards)))
        progress = None if on_start is None else on_start(plan, sum(plan.clips(number) for number in missing))
        written = 0
        while missing:  # more than one round only if another process writes some of them, which may be killed
            written += _write_shards(writer, plan, out, missing, reference, workers, engine, progress)
            missing = _missing(out, missing)
            time.sleep(_POLL_SECONDS if missing else 0)
        return _collect(plan, out, written, find_unplanned(plan, root))
    finally:
        sweep(out)


def _missing(out: Path, numbers: range | list[int]) -> list[int]:
    return [number for number in numbers if not shard_path(out, number).exists()]


def _check_workers(model: AdapTok | str | Path | None, workers: int, engine: Engine) -> None:
    if engine not in get_args(Engine):
        raise ValueError(f"engine {engine!r}, expected one of {', '.join(get_args(Engine))}")
    if workers < 1:
        raise ValueError(f"{workers} workers, expected 1 or more")
    if isinstance(model, AdapTok) and (workers > 1 or engine != "local"):
        raise ValueError("several processes cannot use one AdapTok object; save it and pass its folder")
    if engine == "ray":
        from adaptok.tokenization.ray_cluster import import_ray

        import_ray()  # fails before any work is done


def _write_shards(
    writer: ShardWriter | None,
    plan: TokenPlan,
    out: Path,
    numbers: list[int],
    reference: ModelReference,
    workers: int,
    engine: Engine,
    progress: Progress | None,
) -> int:
    """Write the shards that no other process is writing, and return their number."""
    if writer is not None:
        return sum(writer.write(number, progress) for number in numbers)
    if engine == "ray":
        from adaptok.tokenization.ray_cluster import run_cluster

        return run_cluster(plan, out, numbers, reference, workers, progress)
    from adaptok.tokenization.process_pool import run_workers

    return run_workers(out, numbers, reference, workers, progress)


def _collect(plan: TokenPlan, out: Path, written: int, unplanned: list[str]) -> TokenizationResult:
    notes = [read_notes(shard_path(out, number)) for number in range(len(plan.shards))]
    broken = dict(plan.broken)
    for note in notes:
        broken |= note.broken
    broken = dict(sorted(broken.items()))
    with claiming(out / BROKEN_FILE, wait=True) as file:
        if file is not None:
            file.write((json.dumps(broken, indent=2, ensure_ascii=False) + "\n").encode())
    clips, tokens = sum(note.clips for note in notes), sum(note.tokens for note in notes)
    return TokenizationResult(out, clips, tokens, len(notes), written, broken, unplanned)
