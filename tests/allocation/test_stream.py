"""The streaming controller follows its budget for any scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adaptok.allocation.stream import StreamAllocator


def content(rng: np.random.Generator, blocks: int, scale: float) -> np.ndarray:
    """Convex falling scores of blocks of random difficulty, `[blocks, 12]`."""
    difficulty = scale * rng.lognormal(0, 0.7, (blocks, 1))
    return difficulty * np.exp(-np.arange(1, 13) / rng.uniform(2, 9, (blocks, 1)))


@pytest.mark.parametrize("budget", [40.0, 96.0, 150.0])
def test_stream_follows_the_budget_and_recovers_after_a_change(budget):
    rng = np.random.default_rng(2)
    allocator = StreamAllocator(budget, length_step=16)
    calm = [allocator.choose(row) for row in content(rng, 400, 1.0)]
    busy = [allocator.choose(row) for row in content(rng, 600, 30.0)]
    assert np.mean(calm) == pytest.approx(budget, rel=0.05)
    assert np.mean(calm + busy) == pytest.approx(budget, rel=0.05)
    assert np.mean(busy[-300:]) == pytest.approx(budget, rel=0.05)
    used = np.cumsum(calm + busy)
    assert (used <= budget * (np.arange(1000) + 1 + allocator.burst) + 16).all()


def test_stream_does_not_depend_on_the_scale():
    rows = content(np.random.default_rng(3), 80, 1.0)
    plain, scaled = StreamAllocator(64, length_step=16), StreamAllocator(64, length_step=16)
    assert [plain.choose(row) for row in rows] == [scaled.choose(row * 1024) for row in rows]


@settings(max_examples=30)
@given(hnp.arrays(np.float64, (30, 4), elements=st.floats(-1e6, 1e6)))
def test_stream_takes_any_scores(rows):
    allocator = StreamAllocator(24, length_step=16)
    lengths = [allocator.choose(row) for row in rows]
    assert set(lengths) <= {16, 32, 48, 64}
    assert sum(lengths) <= 24 * (len(rows) + allocator.burst) + 16
