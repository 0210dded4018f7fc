"""Shards written on a Ray cluster, by Ray Data."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from adaptok.tokenization.plan import TokenPlan
from adaptok.tokenization.shard_writer import ModelSource, ShardWriter

_MOST_BLOCKS = 1000
"""Pieces that the work is dealt in: one shard each, or more where there are more."""


class _Actor:
    """A process that holds the model, and writes the shards of its rows."""

    def __init__(self, out: str, origin: ModelSource, threads: int) -> None:
        torch.set_num_threads(threads)
        self._out, self._origin = Path(out), origin
        self._writer: ShardWriter | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Whether the shard was written here; what went wrong otherwise, since Ray would bury an exception in pages."""
        try:
            self._writer = self._writer or ShardWriter.open(self._out, self._origin)
            return {**row, "written": self._writer.write(int(row["number"])), "error": ""}
        except (ValueError, OSError, ImportError) as error:
            return {**row, "written": False, "error": str(error)}


def import_ray() -> Any:
    """Ray with its Data.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError:
        raise ImportError("the engine ray needs Ray; install it with: pip install 'adaptok[ray]'") from None
    return ray


def run_cluster(
    plan: TokenPlan,
    out: Path,
    numbers: Sequence[int],
    origin: ModelSource,
    workers: int,
    advance: Callable[[int], None] | None,
) -> int:
    """Write what nobody else writes of these shards; how many that were.

    The cluster is the one that is connected to, or that the environment names (RAY_ADDRESS), or one on this machine,
    which ends with the work.

    Raises:
        ImportError: Ray is not installed.
        ValueError: what went wrong in an actor, or with Ray.
    """
    ray = import_ray()
    ours = not ray.is_initialized()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ours:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what concerns the user comes as an exception
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False
        actors = min(workers, len(numbers))
        processors = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        threads = max(1, int(min(max(processors), sum(processors) / actors)))
        rows = ray.data.from_items(
            [{"number": number} for number in numbers], override_num_blocks=min(len(numbers), _MOST_BLOCKS)
        ).map(
            _Actor,
            fn_constructor_args=(str(out.resolve()), origin, threads),
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=min(1.0, sum(processors) / actors),  # more than there is would wait for ever
            num_gpus=1 if origin.device.startswith("cuda") else 0,
        )
        written = 0
        for row in rows.iter_rows():
            if row["error"]:
                raise ValueError(row["error"])
            written += bool(row["written"])
            if advance is not None:
                advance(plan.clips(int(row["number"])))
        return written
    except ray.exceptions.RayError as error:
        told = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"Ray: {told}; finished shards are kept, start again to go on") from error
    finally:
        if ours:
            ray.shutdown()
