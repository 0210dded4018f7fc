"""The processes of a run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from adaptok.config.optimization import RunConfig
from adaptok.training.metrics_logger import check_trackers
from adaptok.utils.files import replacing


def started_processes() -> int:
    """Return how many processes torchrun or accelerate has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return whether this is the first of the processes that torchrun or accelerate has started."""
    return os.environ.get("RANK", "0") == "0"


def check_processes(config: RunConfig, processes: int) -> None:
    """Check that a run can be trained by this number of processes.

    Raises:
        ValueError: batch sizes, sharding or the settings of accelerate do not fit.
        ImportError: the package of a tracker is missing.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        raise ValueError("accelerate is configured for FSDP; set sharding: true (--sharding) in the run instead")
    if config.sharding and processes == 1:
        raise ValueError("sharding needs several processes; launch the run with: torchrun --nproc-per-node N")
    config.batch_plan(processes)
    check_trackers(config.trackers)


def create_accelerator(config: RunConfig, folder: Path) -> Accelerator:
    """Join the processes of a run. Errors are those of `check_processes`."""
    check_trackers(config.trackers)  # accelerate only warns
    accelerator = Accelerator(
        mixed_precision="no",  # would hold for all runs of this process; Trainer uses autocast
        cpu=not torch.cuda.is_available(),
        log_with=list(config.trackers) or None,
        project_dir=folder,
    )
    check_processes(config, accelerator.num_processes)
    return accelerator


def mean_over_processes(accelerator: Accelerator, metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Average scalars over all processes, each of which must call this function with the same names."""
    means = accelerator.reduce(torch.stack([value.float() for value in metrics.values()]), "mean")
    return dict(zip(metrics, means.tolist(), strict=True))


def gather_broken(broken: Mapping[str, str]) -> dict[str, str]:
    """Merge the broken files that each process found, with the reasons. Every process must call this function."""
    return {path: reason for files in gather_object([dict(broken)]) for path, reason in files.items()}


def report_broken(accelerator: Accelerator, run: Path, broken: Mapping[str, str]) -> dict[str, str]:
    """Collect the files that any process could not read, with the reason, and list them in `broken.json`.

    Every process must call this function.
    """
    collected = gather_broken(broken)
    if collected and accelerator.is_main_process:
        with replacing(run / "broken.json") as path:
            path.write_text(json.dumps(dict(sorted(collected.items())), indent=2), encoding="utf-8")
    return collected
