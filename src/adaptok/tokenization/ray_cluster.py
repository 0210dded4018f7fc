"""Writing shards on a Ray cluster, with Ray Data."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from adaptok.tokenization.plan import TokenPlan
from adaptok.tokenization.shard_writer import ModelReference, ShardWriter
from adaptok.utils.extras import require

_MAX_BLOCKS = 1000
"""Maximum number of blocks of the Ray dataset of shard numbers."""


class _Actor:
    """Process that holds the model and writes the shards of the rows it receives."""

    def __init__(self, out: str, reference: ModelReference, threads: int) -> None:
        torch.set_num_threads(threads)
        self._out, self._reference = Path(out), reference
        self._writer: ShardWriter | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Write a shard. Errors are returned in the row, because Ray would wrap an exception in pages of output."""
        try:
            self._writer = self._writer or ShardWriter.open(self._out, self._reference)
            return {**row, "written": self._writer.write(int(row["number"])), "error": ""}
        except (ValueError, OSError, ImportError) as error:
            return {**row, "written": False, "error": str(error)}


def import_ray() -> Any:
    """Import Ray with Ray Data.

    Raises:
        ImportError: Ray is not installed.
    """
    require("ray", extra="ray", purpose="the engine ray")
    import ray
    import ray.data

    return ray


def run_cluster(
    plan: TokenPlan,
    out: Path,
    numbers: Sequence[int],
    reference: ModelReference,
    workers: int,
    progress: Callable[[int], None] | None,
) -> int:
    """Write the shards that no other process is writing, and return their number.

    Uses the connected cluster or the one of RAY_ADDRESS. Otherwise a cluster is started on this machine, and stopped at
    the end.

    Raises:
        ImportError: Ray is not installed.
        ValueError: The error of an actor or of Ray.
    """
    ray = import_ray()
    is_own_cluster = not ray.is_initialized()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if is_own_cluster:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors that matter are raised as exceptions
        ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    try:
        written = 0
        for row in _map_shards(ray, out, numbers, reference, workers).iter_rows():
            if row["error"]:
                raise ValueError(row["error"])
            written += bool(row["written"])
            if progress is not None:
                progress(plan.clips(int(row["number"])))
        return written
    except ray.exceptions.RayError as error:
        message = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"Ray: {message}; finished shards are kept, run again to resume") from error
    finally:
        if is_own_cluster:
            ray.shutdown()


def _map_shards(ray: Any, out: Path, numbers: Sequence[int], reference: ModelReference, workers: int) -> Any:
    """Return the lazy Ray dataset with one result row per shard."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    actors = min(workers, len(numbers))
    cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    threads = max(1, int(min(max(cpus), sum(cpus) / actors)))
    rows = [{"number": number} for number in numbers]
    return ray.data.from_items(rows, override_num_blocks=min(len(numbers), _MAX_BLOCKS)).map(
        _Actor,
        fn_constructor_args=(str(out.resolve()), reference, threads),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=min(1.0, sum(cpus) / actors),  # Ray would wait forever for more than the cluster has
        num_gpus=1 if reference.device.startswith("cuda") else 0,
    )
