"""Calibration of the scorer: predicted against actual distortions, accumulated in bounded memory."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adaptok.evaluation.results import CalibrationPoint, CalibrationResult
from adaptok.metrics.correlation import rank_correlation

Floats = NDArray[np.float64]

_BIN = math.log(1.005)
"""Distortions within half a percent share a bin, and count as equal where ranks are compared."""
_MIN, _MAX = 1e-9, 1e3
"""Range of the bins."""
_POINTS = 12
"""Points of a calibration curve."""


@dataclass
class Calibration:
    """Sums over blocks: of relative errors, of pairs of bins, and of distortions in each bin of the prediction."""

    count: int = 0
    error: float = 0.0
    bias: float = 0.0
    pairs: Counter[tuple[int, int]] = field(default_factory=Counter)
    sums: dict[int, tuple[int, float, float]] = field(default_factory=dict)

    def add(self, predicted: Floats, actual: Floats) -> None:
        """Add blocks `[n]`; those without a finite distortion on both sides are ignored."""
        known = np.isfinite(predicted) & np.isfinite(actual) & (actual > 0)
        predicted, actual = predicted[known], actual[known]
        self.count += len(predicted)
        self.error += float(np.abs(predicted / actual - 1).sum())
        self.bias += float((predicted / actual - 1).sum())
        rows, columns = (_bins(values) for values in (predicted, actual))
        self.pairs.update(zip(rows.tolist(), columns.tolist(), strict=True))
        for bin_, p, a in zip(rows.tolist(), predicted.tolist(), actual.tolist(), strict=True):
            n, p_sum, a_sum = self.sums.get(bin_, (0, 0.0, 0.0))
            self.sums[bin_] = n + 1, p_sum + p, a_sum + a

    def result(self) -> CalibrationResult | None:
        """Figures of all blocks; None without blocks."""
        if not self.count:
            return None
        predicted, actual, counts = zip(*((*pair, count) for pair, count in sorted(self.pairs.items())), strict=True)
        return CalibrationResult(
            blocks=self.count,
            rank_correlation=rank_correlation(predicted, actual, counts),
            mean_relative_error=self.error / self.count,
            mean_relative_bias=self.bias / self.count,
            curve=self._curve(),
        )

    def _curve(self) -> list[CalibrationPoint]:
        """Mean distortions of groups of blocks with similar predictions."""
        points: list[CalibrationPoint] = []
        n, predicted, actual = 0, 0.0, 0.0
        for index, (_, (count, p, a)) in enumerate(sorted(self.sums.items())):
            n, predicted, actual = n + count, predicted + p, actual + a
            if n >= self.count / _POINTS or index == len(self.sums) - 1:
                points.append(CalibrationPoint(blocks=n, predicted=predicted / n, actual=actual / n))
                n, predicted, actual = 0, 0.0, 0.0
        return points


def _bins(values: Floats) -> NDArray[np.int64]:
    return np.floor(np.log(values.clip(_MIN, _MAX)) / _BIN).astype(np.int64)
