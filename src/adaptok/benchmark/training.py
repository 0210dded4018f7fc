"""Benchmarks of the training steps of a preset, with every loss that needs no downloaded weights.

Work counts the matrix products of the tokenizer at its mean length, of the prior and of the discriminator, forward and
backward (twice the forward). Losses and recomputation do not count.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptok.benchmark.timing import Measurement, measure_in_process, once, peak_flops
from adaptok.config.choices import DType
from adaptok.config.training import TrainingConfig, load_config, override
from adaptok.training.clip_data import open_clip_data
from adaptok.training.estimate import step_flops
from adaptok.training.trainer import Trainer
from adaptok.video.writing import VideoWriter

_VIDEOS, _FRAMES, _WIDTH, _HEIGHT = 12, 120, 320, 240


@contextmanager
def some_videos(folder: Path | None) -> Iterator[Path]:
    """Yield the folder, or a temporary folder with videos of moving noise."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as name:
        for index in range(_VIDEOS):
            rng = np.random.default_rng(index)
            field = rng.integers(0, 256, (_HEIGHT // 16, _WIDTH // 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
            with VideoWriter(Path(name) / f"{index}.mp4", 30) as writer:
                for frame in range(_FRAMES):
                    writer.write(np.roll(field, (frame, 2 * frame), (0, 1)))
        yield Path(name)


def configuration(
    preset: str, batch: int, steps: int, data: Path, checkpointing: bool, precision: DType | None = None
) -> TrainingConfig:
    """Configure a preset with this batch size and number of steps, without losses that need downloads."""
    values: dict[str, Any] = {"batch_size": batch, "max_steps": steps, "initialization": "random"}
    values |= {"trackers": (), "activation_checkpointing": checkpointing}
    values |= {"data.train": (str(data),), "data.weights": (), "data.validation": None, "data.workers": 2}
    config = load_config(preset, "tokenizer")
    if precision is not None:
        values["precision"] = precision
    if config.losses.lpips.weight:
        values |= {"losses.lpips": 0.0, "losses.frequency": 1.0}
    return override(config, values)


def measure_training(
    preset: str,
    batch: int,
    steps: int,
    data: Path,
    *,
    checkpointing: bool,
    warm: int,
    precision: DType | None = None,
) -> Measurement:
    """Measure training steps in this process, after `warm` steps that allocate memory and fill the cache of frames."""
    config = configuration(preset, batch, warm + steps, data, checkpointing, precision)
    dtype = getattr(torch, config.precision)
    with tempfile.TemporaryDirectory() as folder:
        run = Trainer(config, open_clip_data(config), Path(folder))
        device = run.accelerator.device
        times, waits, peaks = [], [], [peak_flops(dtype, device)]
        with closing(run.batches()) as batches:
            for step in range(warm + steps):
                waited: list[float] = []
                seconds = once(lambda w=waited: w.append(run.train_step(batches).data_seconds), device)  # type: ignore[misc]
                run.step += 1
                if step >= warm:
                    times.append(seconds)
                    waits += waited
                peaks.append(peak_flops(dtype, device))
    settings = {"preset": preset, "dtype": config.precision, "batch_size": batch, "checkpointing": checkpointing}
    total = sum(each.elapsed for each in times)
    return Measurement.of(
        "training step",
        settings,
        times,
        device,
        work_gflop=step_flops(config) / 1e9,
        peak_gflops=max(peaks) / 1e9,
        more={"clips_per_second": batch * steps / total, "data_fraction": sum(waits) / total},
    )


def largest_batch(preset: str, limit: float, flags: Sequence[object]) -> int:
    """Find the largest batch whose process stays within `limit` GB: extrapolate from small batches, then go down.

    `flags` are further options of `adaptok benchmark train`.
    """

    def used(batch: int) -> float:
        short = ["--preset", preset, "--batch-size", batch, "--repeats", 1, "--warmup-steps", 1]
        return measure_in_process("train", [*short, *flags])[0].memory_gb

    small, more = used(1), used(2)
    batch = max(1, int(1 + (limit - small) / max(more - small, 1e-9)))
    while batch > 1 and used(batch) > limit:
        batch -= 1
    return batch
