"""Benchmarks of choosing lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from adaptok.allocation.knapsack import allocate
from adaptok.allocation.stream import StreamAllocator
from adaptok.benchmark.timing import Measurement, Seconds, timed

LEVELS, STEP = 8, 64
STREAM_BLOCKS = 10_000
_SHORT = 1000
_MORE_REPEATS = 20

Scores = NDArray[np.float64]


def random_scores(rng: np.random.Generator, blocks: int, levels: int, kind: int) -> Scores:
    """Draw scores `[blocks, levels]` of a kind: 0 convex, 1 falling, 2 unordered, 3 with ties, 4 also negative."""
    scores: Scores = rng.random((blocks, levels))
    if kind == 0:
        steps = np.sort(rng.random((blocks, levels)), axis=1)[:, ::-1]
        return rng.random((blocks, 1)) * 9 - np.cumsum(steps, axis=1)
    if kind == 1:
        return np.sort(scores, axis=1)[:, ::-1].copy()
    if kind == 3:
        return np.floor(scores * 4)
    return scores - 0.5 if kind == 4 else scores


def measure_allocation(blocks: tuple[int, ...], repeats: int) -> list[Measurement]:
    """Measure exact allocation of these numbers of blocks, and a stream, at half of the tokens with falling scores."""
    cpu, measurements = torch.device("cpu"), []
    for count in blocks:
        scores = random_scores(np.random.default_rng(1), count, LEVELS, 1)
        budget = count * LEVELS // 2 * STEP

        def run(scores: Scores = scores, budget: int = budget) -> object:
            return allocate(scores, budget, length_step=STEP)

        times = timed(run, repeats * (_MORE_REPEATS if count <= _SHORT else 1), cpu)
        result = allocate(scores, budget, length_step=STEP)
        gap = result.gap / abs(result.distortion - result.gap)
        measurements.append(_measurement("allocate", count, times, {"relative_gap": gap}))
    scores = random_scores(np.random.default_rng(1), STREAM_BLOCKS, LEVELS, 1)

    def stream() -> None:
        allocator = StreamAllocator(LEVELS // 2 * STEP, length_step=STEP)
        for row in scores:
            allocator.choose(row)

    return [*measurements, _measurement("stream", STREAM_BLOCKS, timed(stream, repeats, cpu), {})]


def _measurement(case: str, blocks: int, times: Sequence[Seconds], more: dict[str, float]) -> Measurement:
    settings = {"blocks": blocks, "lengths": LEVELS}
    measurement = Measurement.of(case, settings, times, torch.device("cpu"))
    return replace(measurement, more={"blocks_per_second": blocks / measurement.median_s, **more})
