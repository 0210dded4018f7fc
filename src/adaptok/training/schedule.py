"""How long a run is, and how its learning rate goes."""

from __future__ import annotations

import math

from adaptok.config.optimization import OptimizerConfig, RunConfig


def run_length(config: RunConfig, files: int | None, processes: int = 1) -> tuple[int, int]:
    """Steps of a run, and those of its warm-up.

    Raises:
        ValueError: it is given in epochs, and the number of files is not known.
    """
    if config.max_steps is not None:
        return config.max_steps, config.optimizer.warmup_steps
    assert config.epochs is not None
    if not files:
        raise ValueError("the length of the run is given in epochs, which needs files; give max_steps")
    per_epoch = files / config.batch_plan(processes).batch_size
    warmup = config.optimizer.warmup_epochs
    return max(1, math.ceil(config.epochs * per_epoch)), (
        config.optimizer.warmup_steps if warmup is None else math.ceil(warmup * per_epoch)
    )


def learning_rate_factor(config: OptimizerConfig, step: int, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at `step` of `steps`, the first `warmup` of which it rises."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    if config.schedule == "constant":
        return 1.0
    shape = 1 - progress if config.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.final_lr_ratio + (1 - config.final_lr_ratio) * shape
