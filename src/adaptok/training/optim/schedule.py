"""Length of a run, and its learning rate schedule."""

from __future__ import annotations

import math
from typing import NamedTuple

from adaptok.config.optimization import OptimizerConfig, RunConfig


class RunLength(NamedTuple):
    """Length of a run in steps."""

    steps: int
    """Number of optimizer steps."""
    warmup_steps: int
    """Number of these in which the learning rate rises."""


def run_length(config: RunConfig, epoch_size: int | None, processes: int = 1) -> RunLength:
    """Derive the length of a run.

    Args:
        config: configuration of the run.
        epoch_size: number of clips per epoch, if known.
        processes: number of training processes.

    Raises:
        ValueError: the length is given in epochs, and the number of clips per epoch is unknown.
    """
    optimizer = config.optimizer
    if config.max_steps is not None:
        return RunLength(config.max_steps, optimizer.warmup_steps)
    assert config.epochs is not None
    if not epoch_size:
        raise ValueError(f"epochs {config.epochs:g} needs training data from files; give max_steps instead")
    steps_per_epoch = epoch_size / config.batch_plan(processes).batch_size
    steps = max(1, math.ceil(config.epochs * steps_per_epoch))
    if optimizer.warmup_epochs is None:
        return RunLength(steps, optimizer.warmup_steps)
    return RunLength(steps, math.ceil(optimizer.warmup_epochs * steps_per_epoch))


def lr_factor(config: OptimizerConfig, step: int, length: RunLength) -> float:
    """Compute the learning rate of the step after `step` others, as a fraction of its peak."""
    if step < length.warmup_steps:
        return (step + 1) / length.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = (step - length.warmup_steps) / max(1, length.steps - length.warmup_steps)
    shape = 1 - progress if config.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.final_lr_ratio + (1 - config.final_lr_ratio) * shape
