"""Speed of a training step on this machine, as a share of its matrix-product peak in bfloat16, memory, and waiting.

python benchmarks/training.py [--preset tiny base] [--batch N] [--steps 5] [--memory 20] [--data FOLDER]

Steps of the preset's recipe with every loss that needs no downloaded weights. Work is what block-causal attention
needs, forward and twice that backward, of the tokenizer at the lengths that its law gives on average, of the prior and
of the discriminator; the losses and whatever is computed again count as nothing. Without `--batch`, tiny runs at
16 and base at the largest batch whose process stays within `--memory` GB, found by trying. Clips are decoded by two
workers from `--data`, or from videos drawn for this.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as the command line does

import numpy as np
import torch

from adaptok.training.configuration import TrainingConfig, load_config
from adaptok.training.data import open_data
from adaptok.training.estimate import step_work
from adaptok.training.loop import Run
from adaptok.video.writing import VideoWriter

WARM = 3
"""Steps before measurement, where times count: memory is mapped, caches of frames fill."""
VIDEOS, FRAMES, WIDTH, HEIGHT = 24, 240, 320, 240


def peak() -> float:
    """Operations per second of the best large matrix product in bfloat16."""
    best = 0.0
    for rows, inner, columns in ((3072, 3072, 3072), (4096, 768, 3072), (8192, 768, 2304), (2048, 3072, 768)):
        a, b = torch.randn(rows, inner, dtype=torch.bfloat16), torch.randn(columns, inner, dtype=torch.bfloat16)
        for _ in range(6):
            started = time.perf_counter()
            torch.mm(a, b.T)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - started))
    return best


def draw_videos(folder: Path) -> None:
    """Videos of drifting coarse noise."""
    for index in range(VIDEOS):
        rng = np.random.default_rng(index)
        field = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        with VideoWriter(folder / f"{index}.mp4", 30) as writer:
            for frame in range(FRAMES):
                writer.write(np.roll(field, (frame, 2 * frame), (0, 1)))


def configuration(preset: str, batch: int, steps: int, data: Path, checkpointing: bool) -> TrainingConfig:
    """The preset at this batch, without what needs downloads, for a few steps."""
    values: dict[str, Any] = load_config(preset, "tokenizer").model_dump()
    values |= {"batch": batch, "accumulation": 1, "epochs": None, "steps": steps, "start": "random"}
    values |= {"trackers": (), "activation_checkpointing": checkpointing}
    values["data"] |= {"train": (str(data),), "weights": (), "validation": None, "workers": 2}
    values["optimizer"] |= {"warmup_epochs": None}
    if values["losses"].get("lpips"):
        values["losses"] |= {"lpips": 0.0, "frequency": 1.0}
    return TrainingConfig.parse(values)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """A few steps in this process."""
    preset, batch, steps, warm = options.preset[0], options.batch, options.steps, options.warm
    config = configuration(preset, batch, warm + steps, options.data, options.checkpointing)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(config, open_data(config), Path(folder))
        batches = run.batches()
        times, waits, peaks = [], [], [peak()]
        for step in range(warm + steps):
            started = time.perf_counter()
            _, waited = run.train_step(batches)
            run.step += 1
            if step >= warm:
                times.append(time.perf_counter() - started)
                waits.append(waited)
            peaks.append(peak())
    work, seconds = step_work(config), statistics.mean(times)
    return {
        "preset": preset,
        "batch": batch,
        "activation_checkpointing": options.checkpointing,
        "work_gflop": work / 1e9,
        "mean_s": seconds,
        "least_s": min(times),
        "peak_gflops": max(peaks) / 1e9,
        "share": work / seconds / max(peaks),
        "waiting": sum(waits) / sum(times),
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def in_own_process(options: argparse.Namespace, preset: str, batch: int, steps: int, warm: int) -> dict[str, Any]:
    """The same in a process of its own, so that peak memory is its own."""
    command = [sys.executable, __file__, "--here", "--preset", preset, "--batch", str(batch), "--steps", str(steps)]
    command += ["--warm", str(warm), "--data", str(options.data)] + ["--checkpointing"] * options.checkpointing
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def largest_batch(options: argparse.Namespace, preset: str) -> int:
    """The largest batch that fits the memory: from the memory of small ones, then down until it does."""
    small, more = (in_own_process(options, preset, batch, 1, 1)["memory_gb"] for batch in (1, 2))
    batch = max(1, int(1 + (options.memory - small) / (more - small)))
    while batch > 1 and in_own_process(options, preset, batch, 1, 1)["memory_gb"] > options.memory:
        batch -= 1
    return batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", default=["tiny", "base"])
    parser.add_argument("--batch", type=int)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warm", type=int, default=WARM, help="steps before those that are measured")
    parser.add_argument("--memory", type=float, default=20.0, help="GB that a process may take")
    parser.add_argument("--data", type=Path, help="folder of videos; some are drawn if not given")
    parser.add_argument("--checkpointing", action="store_true", help="with activation checkpointing")
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of text")
    parser.add_argument("--here", action="store_true", help="measure one preset and batch in this process")
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as drawn:
        if options.data is None:
            options.data = Path(drawn)
            draw_videos(options.data)
        for preset in options.preset:
            batch = options.batch or (16 if preset == "tiny" else largest_batch(options, preset))
            r = in_own_process(options, preset, batch, options.steps, options.warm)
            if options.json:
                print(json.dumps(r), flush=True)
                continue
            print(
                f"{preset}, batch {batch}, bfloat16, {torch.get_num_threads()} threads: {r['work_gflop']:.0f} GFLOP in"
                f" {r['mean_s']:.2f} s (least {r['least_s']:.2f}), peak {r['peak_gflops']:.0f} GFLOP/s, share"
                f" {r['share']:.1%}, waiting for clips {r['waiting']:.1%}, memory {r['memory_gb']:.1f} GB",
                flush=True,
            )


if __name__ == "__main__":
    main()
