"""Check on random instances that the exact allocation is optimal, against `scipy.optimize.milp`.

python experiments/allocation_optimality.py [10000]
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from adaptok.allocation.knapsack import allocate
from adaptok.benchmark.allocation import Scores, random_scores


def optimum(scores: Scores, capacity: int) -> float:
    """Smallest sum of scores, by mixed-integer programming."""
    blocks, levels = scores.shape
    one_each = np.kron(np.eye(blocks), np.ones(levels))
    weights = np.tile(np.arange(levels), blocks)[None]
    rows = [LinearConstraint(one_each, 1, 1), LinearConstraint(weights, 0, capacity)]
    ones = np.ones(scores.size)
    result = milp(scores.ravel(), constraints=rows, integrality=ones, bounds=Bounds(0, 1), options={"mip_rel_gap": 0})
    return float(scores.ravel()[result.x > 0.5].sum())


def check(instances: int) -> None:
    """Compare random instances; exit with 1 at the first difference."""
    rng = np.random.default_rng(0)
    for index in range(instances):
        scores = random_scores(rng, int(rng.integers(1, 13)), int(rng.integers(1, 9)), index % 5)
        blocks, levels = scores.shape
        capacity = int(rng.integers(0, blocks * (levels - 1) + 1))
        result, best = allocate(scores, capacity + blocks, length_step=1), optimum(scores, capacity)
        if abs(result.distortion - best) > 1e-9 * max(1, abs(best)) or result.gap or result.tokens > capacity + blocks:
            print(f"instance {index}: {result} but the optimum is {best}\n{scores.tolist()}")
            sys.exit(1)
    print(f"{instances} random instances: optimal against scipy.optimize.milp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("instances", type=int, nargs="?", default=10_000)
    check(parser.parse_args().instances)


if __name__ == "__main__":
    main()
