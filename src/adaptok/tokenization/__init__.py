"""Collections of videos to token datasets: planned once, then worked off by any number of processes.

`tokenize` plans (`planning`), deals the shards that are missing to workers (`workers`, or `cluster` for Ray), and sums
up. A shard is a function of the plan and the model alone (`shards`), and is claimed before it is written, so it is
written once: work may be killed at any moment, and started again, or on several machines at once.
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
from adaptok.tokenization.plan import TokenOptions, TokenPlan, make_plan, shard_path, unplanned
from adaptok.tokenization.shard_writer import ModelSource, ShardWriter
from adaptok.utils.files import claiming, sweep

__all__ = ["Engine", "TokenOptions", "TokenPlan", "Tokenized", "tokenize"]

BROKEN_FILE = "broken.json"
Advance = Callable[[int], None]
_PATIENCE = 0.5  # seconds between looks at shards that another process is writing


@dataclass(frozen=True)
class Tokenized:
    """A token dataset that is finished.

    Attributes:
        clips, tokens: in all of its shards.
        shards: how many there are; `written` by this call, the others were there or came from another process.
        broken: files that could not be read, or only in part, with the reason.
        unplanned: files that the source has now, but had not when the dataset was begun; they are not in it.
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
    looked: Advance | None = None,
    begun: Callable[[TokenPlan, int], Advance] | None = None,
) -> Tokenized:
    """Write a token dataset of all videos of a collection, or go on with one that was begun.

    Args:
        source: folder, searched recursively; list of files (.csv, .txt); or index of `adaptok data index`.
        out: folder of the dataset, new, empty or with the same one begun.
        model: a folder, or a hub id; None is the model in the box. A codec only for one worker of the engine "local".
        options: what is taken of the videos, and how lengths are chosen.
        root: where relative paths of a list start; its folder if None.
        device, dtype: as for `AdapTok.from_pretrained`.
        workers: processes. Each has a model, and decodes with one thread.
        engine: "local": on this machine; "ray": on a Ray cluster, the one that is there or one on this machine. All
            its machines see `source` and `out` at the same place.
        looked: called with the number of files just opened, while planning.
        begun: called with the plan and how many clips are left to do; what it returns is called with the number of
            clips just done.

    Raises:
        FileNotFoundError: the source or the model is not there, or a file has gone since the dataset was begun.
        ValueError: an argument is out of its range; there is no readable video; or `out` holds something else, or was
            begun with other arguments: the message names the difference.
        ChildProcessError: a worker was killed.
    """
    _check_running(model, workers, engine)
    out = Path(out)
    origin = ModelSource.of(model, device, dtype)
    codec = model if isinstance(model, AdapTok) else origin.load()
    sweep(out)
    try:
        plan = make_plan(source, out, codec, options or TokenOptions(), root=root, looked=looked)
        writer = ShardWriter(codec, plan, out) if engine == "local" and workers == 1 else None
        del codec  # several processes have their own
        missing = [number for number in range(len(plan.shards)) if not shard_path(out, number).exists()]
        advance = None if begun is None else begun(plan, sum(plan.clips(number) for number in missing))
        written = 0
        left = missing
        while left:  # a second round only where another process is writing some of them, and may be killed yet
            written += _write(writer, plan, out, left, origin, workers, engine, advance)
            left = [number for number in left if not shard_path(out, number).exists()]
            time.sleep(_PATIENCE if left else 0)
        return _sum_up(plan, out, written, unplanned(plan, root))
    finally:
        sweep(out)


def _check_running(model: AdapTok | str | Path | None, workers: int, engine: Engine) -> None:
    if engine not in get_args(Engine):
        raise ValueError(f"engine {engine!r}, expected one of {', '.join(get_args(Engine))}")
    if workers < 1:
        raise ValueError(f"{workers} workers, expected 1 or more")
    if isinstance(model, AdapTok) and (workers > 1 or engine != "local"):
        raise ValueError("several processes cannot share a codec; save it, and give its folder")
    if engine == "ray":
        from adaptok.tokenization.ray_cluster import import_ray

        import_ray()  # before any work is done


def _write(
    writer: ShardWriter | None,
    plan: TokenPlan,
    out: Path,
    numbers: list[int],
    origin: ModelSource,
    workers: int,
    engine: Engine,
    advance: Advance | None,
) -> int:
    """Write what nobody else writes of these shards; how many that were."""
    if writer is not None:
        return sum(writer.write(number, advance) for number in numbers)
    if engine == "ray":
        from adaptok.tokenization.ray_cluster import run_cluster

        return run_cluster(plan, out, numbers, origin, workers, advance)
    from adaptok.tokenization.process_pool import run_workers

    return run_workers(out, numbers, origin, workers, advance)


def _sum_up(plan: TokenPlan, out: Path, written: int, unplanned: list[str]) -> Tokenized:
    notes = [read_notes(shard_path(out, number)) for number in range(len(plan.shards))]
    broken = dict(plan.broken)
    for note in notes:
        broken |= note.broken
    broken = dict(sorted(broken.items()))
    with claiming(out / BROKEN_FILE, wait=True) as file:
        if file is not None:
            file.write((json.dumps(broken, indent=2, ensure_ascii=False) + "\n").encode())
    clips, tokens = sum(note.clips for note in notes), sum(note.tokens for note in notes)
    return Tokenized(out, clips, tokens, len(notes), written, broken, unplanned)
