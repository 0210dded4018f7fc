"""Allocations are optimal, compared with independent solvers, and within their budget."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file
from scipy.optimize import Bounds, LinearConstraint, milp

from adaptok.allocation.knapsack import allocate, allocate_exact, allocate_to_target, uniform_lengths

DATA = Path(__file__).parents[1] / "fixtures"


def scores_strategy(blocks: int = 5, levels: int = 4):
    """Scores of all kinds: whole numbers tie often, and nothing makes them convex or falling."""
    shape = st.tuples(st.integers(1, blocks), st.integers(1, levels))
    return shape.flatmap(lambda s: hnp.arrays(np.float64, s, elements=st.integers(-6, 6).map(float)))


def brute_force(scores: np.ndarray, allowed) -> tuple[float, list[tuple[float, int]]]:
    rows = np.arange(len(scores))
    actual = [
        (float(scores[rows, list(choice)].sum()), sum(choice))
        for choice in product(range(scores.shape[1]), repeat=len(scores))
    ]
    fitting = [item for item in actual if allowed(item[1])]
    return min(fitting)[0], actual


@given(scores_strategy(), st.integers(0, 20))
def test_is_optimal_and_within_budget(scores, extra):
    length_step, blocks = 3, len(scores)
    budget = length_step * blocks + extra
    result = allocate(scores, budget, length_step=length_step)
    best, _ = brute_force(scores, lambda levels: (levels + blocks) * length_step <= budget)
    assert result.gap == 0
    assert result.distortion == pytest.approx(best, abs=1e-9)
    assert result.tokens == result.lengths.sum() <= budget
    assert set(result.lengths.tolist()) <= {length_step * (j + 1) for j in range(scores.shape[1])}


@given(scores_strategy(), st.integers(0, 20))
def test_exact_sum_is_optimal(scores, level_sum):
    blocks, most = len(scores), len(scores) * (scores.shape[1] - 1)
    total = min(level_sum, most)
    result = allocate_exact(scores, (total + blocks) * 2 / blocks + 1e-9, length_step=2)
    best, _ = brute_force(scores, lambda levels: levels == total)
    assert result.tokens == (total + blocks) * 2
    assert result.distortion == pytest.approx(best, abs=1e-9)


@given(scores_strategy(4, 4), st.integers(-24, 24).map(lambda x: x / 4))
def test_target_takes_the_fewest_tokens(scores, target):
    blocks = len(scores)
    _, actual = brute_force(scores, lambda _: True)
    reaching = [(levels, cost) for cost, levels in actual if cost / blocks <= target + 1e-12]
    if not reaching:
        with pytest.raises(ValueError, match="lowest mean distortion"):
            allocate_to_target(scores, target, length_step=5)
        return
    result = allocate_to_target(scores, target, length_step=5)
    assert result.tokens == (min(reaching)[0] + blocks) * 5
    assert result.distortion / blocks <= target + 1e-9


def solve_with_milp(scores: np.ndarray, capacity: int) -> float:
    blocks, levels = scores.shape
    one_each = np.kron(np.eye(blocks), np.ones(levels))
    weights = np.tile(np.arange(levels), blocks)[None]
    constraints = [LinearConstraint(one_each, 1, 1), LinearConstraint(weights, 0, capacity)]
    result = milp(
        scores.ravel(),
        constraints=constraints,
        integrality=np.ones(scores.size),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    return float(result.fun)


def test_larger_instances_against_milp():
    rng = np.random.default_rng(0)
    for index in range(60):
        blocks = int(rng.integers(2, 40))
        scores = rng.random((blocks, 8))
        if index % 3:
            scores = np.sort(scores, axis=1)[:, ::-1] * rng.exponential(1, (blocks, 1))
        capacity = int(rng.integers(0, 7 * blocks + 1))
        result = allocate(scores, (capacity + blocks) * 4, length_step=4)
        assert result.gap == 0
        assert result.distortion == pytest.approx(solve_with_milp(scores, capacity), abs=1e-7)


def test_official_objectives():
    golden = load_file(DATA / "allocation_golden.safetensors")
    cases = {name.split(".")[0] for name in golden}
    assert len(cases) >= 1
    for case in cases:
        scores = golden[f"{case}.scores"]
        level = float(golden[f"{case}.average_level"].reshape(-1)[0])
        result = allocate_exact(scores, level, length_step=1)
        assert result.distortion == pytest.approx(float(golden[f"{case}.objective"].reshape(-1)[0]), abs=1e-6)


def test_price_is_what_a_token_is_worth():
    scores = np.array([[8.0, 4.0, 2.0, 1.0]] * 10)
    result = allocate(scores, 10 * 20, length_step=10)
    assert result.tokens == 200
    assert 0.2 <= result.lmbda <= 0.4  # the next level saves 2 for 10 tokens, the last one saved 4
    assert allocate(scores, 10_000, length_step=10).lmbda == 0


def test_keeps_the_shape_and_spends_nothing_in_vain():
    scores = np.zeros((2, 3, 4))
    result = allocate(scores, 1000, length_step=16)
    assert result.lengths.shape == (2, 3)
    assert (result.lengths == 16).all()


def test_large_instance_is_within_its_certified_gap():
    scores = np.sort(np.random.default_rng(1).random((20_000, 8)), axis=1)[:, ::-1]
    result = allocate(scores, 20_000 * 4 * 16, length_step=16)
    assert result.tokens <= 20_000 * 4 * 16
    assert 0 <= result.gap <= 1e-6 * result.distortion


@pytest.mark.parametrize(
    ("scores", "tokens", "message"),
    [
        ([[1.0, np.nan]], 10, "NaN"),
        ([[1.0, np.inf]], 10, "infinite"),
        (np.zeros((0, 3)), 10, "shape"),
        ([[1.0, 2.0], [1.0, 2.0]], 7, "expected at least 8"),
        ([[1.0, 2.0]], float("nan"), "expected at least 4"),
    ],
)
def test_bad_input(scores, tokens, message):
    with pytest.raises(ValueError, match=message):
        allocate(scores, tokens, length_step=4)


@given(st.integers(1, 50), st.integers(0, 4000))
def test_uniform_is_even(blocks, tokens):
    lengths = uniform_lengths(blocks, tokens, 64)
    assert lengths.sum() == min(tokens, blocks * 64)
    assert lengths.max() - lengths.min() <= 1
