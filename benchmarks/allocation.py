"""Speed of the allocation, and its optimality against an independent solver.

python benchmarks/allocation.py [--check 10000]
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from adaptok.allocation import allocate

Scores = NDArray[np.float64]


def random_scores(rng: np.random.Generator, blocks: int, levels: int, kind: int) -> Scores:
    """Scores `[blocks, levels]`: convex, falling, of any order, with ties, or negative."""
    scores: Scores = rng.random((blocks, levels))
    if kind == 0:
        steps = np.sort(rng.random((blocks, levels)), axis=1)[:, ::-1]
        return rng.random((blocks, 1)) * 9 - np.cumsum(steps, axis=1)
    if kind == 1:
        return np.sort(scores, axis=1)[:, ::-1].copy()
    if kind == 3:
        return np.floor(scores * 4)
    return scores - 0.5 if kind == 4 else scores


def optimum(scores: Scores, capacity: int) -> float:
    """The least sum of scores, by mixed-integer programming."""
    blocks, levels = scores.shape
    one_each = np.kron(np.eye(blocks), np.ones(levels))
    weights = np.tile(np.arange(levels), blocks)[None]
    rows = [LinearConstraint(one_each, 1, 1), LinearConstraint(weights, 0, capacity)]
    ones = np.ones(scores.size)
    result = milp(scores.ravel(), constraints=rows, integrality=ones, bounds=Bounds(0, 1), options={"mip_rel_gap": 0})
    return float(scores.ravel()[result.x > 0.5].sum())


def check(instances: int) -> None:
    """Compare on random instances; exits with 1 at the first difference."""
    rng = np.random.default_rng(0)
    for index in range(instances):
        scores = random_scores(rng, int(rng.integers(1, 13)), int(rng.integers(1, 9)), index % 5)
        blocks, levels = scores.shape
        capacity = int(rng.integers(0, blocks * (levels - 1) + 1))
        result, best = allocate(scores, capacity + blocks, step=1), optimum(scores, capacity)
        if abs(result.distortion - best) > 1e-9 * max(1, abs(best)) or result.gap or result.tokens > capacity + blocks:
            print(f"instance {index}: {result} but the optimum is {best}\n{scores.tolist()}")
            sys.exit(1)
    print(f"{instances} random instances: optimal against scipy.optimize.milp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=int, default=0, metavar="N", help="instances to compare with milp")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    for blocks in (256, 1_000_000):
        scores = random_scores(np.random.default_rng(1), blocks, 8, 1)
        times = []
        for _ in range(options.repeats if blocks > 1000 else 20 * options.repeats):
            started = time.perf_counter()
            result = allocate(scores, blocks * 4 * 64, step=64)
            times.append(time.perf_counter() - started)
        bound = result.distortion - result.gap
        gap = result.gap / abs(bound)
        best, median = min(times) * 1e3, float(np.median(times)) * 1e3
        print(f"{blocks} blocks x 8 levels: {best:.2f} ms at best, {median:.2f} ms median, gap {gap:.1e}")
    if options.check:
        check(options.check)


if __name__ == "__main__":
    main()
