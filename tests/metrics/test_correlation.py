"""Rank correlation against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from adaptok.metrics.correlation import rank_correlation


def test_ranks_with_ties_are_scipy():
    rng = np.random.default_rng(0)
    for levels in (3, 10, 1000):
        a = rng.integers(0, levels, 50)
        b = a + rng.integers(0, levels, 50)
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_weights_repeat_pairs():
    a, b, counts = [1, 2, 2, 5], [3.0, 1.0, 4.0, 4.0], [2, 1, 3, 4]
    repeated = rank_correlation(np.repeat(a, counts), np.repeat(b, counts))
    assert rank_correlation(a, b, counts) == pytest.approx(repeated, abs=1e-12)


def test_equal_values_have_no_correlation():
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0
