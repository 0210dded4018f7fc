"""Rank correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def rank_correlation(a: ArrayLike, b: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Compute Spearman's rank correlation.

    Equal values get their mean rank. Without weights this is `scipy.stats.spearmanr`, which the core installation does
    without.

    Args:
        a, b: paired values `[N]`.
        weights: number of times that each pair occurs `[N]`; once if None.

    Returns:
        The correlation, or 0 if all values of one side are equal.
    """
    counts = np.ones(np.shape(a)) if weights is None else np.asarray(weights, np.float64)
    x, y = (_mean_ranks(np.asarray(values), counts) for values in (a, b))
    x, y = (ranks - np.average(ranks, weights=counts) for ranks in (x, y))
    scale = float(np.sqrt((counts * x * x).sum() * (counts * y * y).sum()))
    return float((counts * x * y).sum()) / scale if scale else 0.0


def _mean_ranks(values: NDArray[np.generic], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse = np.unique(values, return_inverse=True)
    totals = np.bincount(inverse, weights=counts)
    ranks: NDArray[np.float64] = (np.cumsum(totals) - (totals - 1) / 2)[inverse]
    return ranks
