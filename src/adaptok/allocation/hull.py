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
        levels = scores.shape[1]
        rows = np.arange(len(scores))
        at = np.zeros(len(scores), np.int64)
        blocks, widths, slopes = [], [], []
        for _ in range(levels - 1):
            here = scores[rows, at]
            best, jump = np.full(len(rows), np.inf), np.zeros(len(rows), np.int64)
            for level in range(1, levels):
                span = level - at
                ahead = span > 0
                slope = np.where(ahead, scores[rows, level] - here, np.inf) / np.where(ahead, span, 1)
                closer = slope <= best if level > 1 else slope < best  # the longest of edges with equal slopes
                closer &= ahead
                best = np.where(closer, slope, best)
                jump = np.where(closer, span, jump)
            going = (jump > 0) & (best < 0) if falling else jump > 0
            blocks.append(rows[going])
            widths.append(jump[going])
            slopes.append(best[going])
            at = at[going] + jump[going]
            rows = rows[going]
            open_ended = at < levels - 1
            rows, at = rows[open_ended], at[open_ended]
            if len(rows) == 0:
                break
        if not slopes:
            nothing = np.zeros(0, np.int64)
            return cls(nothing, nothing, np.zeros(0))
        joined = np.concatenate(slopes)
        order = np.argsort(joined, kind="stable")
        return cls(np.concatenate(blocks)[order], np.concatenate(widths)[order], joined[order])
