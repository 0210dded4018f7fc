"""Lower convex hulls of rate–distortion curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Edges:
    """Edges of the lower convex hulls of all blocks, in ascending order of slope.

    Attributes:
        blocks: `[E]` index of the block of each edge.
        widths: `[E]` number of levels that each edge spans.
        slopes: `[E]` score per level.
    """

    blocks: Ints
    widths: Ints
    slopes: Floats

    @classmethod
    def of(cls, scores: Floats, falling: bool) -> Edges:
        """Compute the edges for `scores [N, L]`. If `falling`, only those that lower the score."""
        last = scores.shape[1] - 1
        rows, at = np.arange(len(scores)), np.zeros(len(scores), np.int64)
        blocks, widths, slopes = [rows[:0]], [at[:0]], [np.zeros(0)]
        while last > 0 and len(rows):
            spans = np.arange(last + 1) - at[:, None]  # from the end of the hull so far to each level
            rises = scores[rows] - scores[rows, at][:, None]
            slope = np.where(spans > 0, rises, np.inf) / np.maximum(spans, 1)
            best = slope.min(1)
            jump = last - slope[:, ::-1].argmin(1) - at  # the longest of edges with equal slopes
            useful = best < 0 if falling else jump > 0
            blocks.append(rows[useful])
            widths.append(jump[useful])
            slopes.append(best[useful])
            at = at + jump
            unfinished = useful & (at < last)
            rows, at = rows[unfinished], at[unfinished]
        joined = np.concatenate(slopes)
        order = np.argsort(joined, kind="stable")
        return cls(np.concatenate(blocks)[order], np.concatenate(widths)[order], joined[order])
