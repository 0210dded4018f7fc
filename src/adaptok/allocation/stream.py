"""Allocation of tokens to the blocks of a stream."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from adaptok.allocation.hull import Edges, Floats


class StreamAllocator:
    """λ-controlled lengths of a stream, chosen one block at a time without knowledge of later blocks.

    A block is extended while each token saves at least λ. λ begins at the value at which the first block uses the
    budget, and then follows the running average: a controller moves its logarithm by the error of the last block and
    the accumulated surplus, so the scale of the scores does not matter. The total number of tokens never exceeds the
    budget of the blocks so far by more than `burst` blocks plus one step per block.

    Args:
        budget: Mean number of tokens per block.
        length_step: Distance between candidate lengths, in tokens.
        lmbda: Initial λ, in distortion per token; None derives it from the first block.
        burst: Number of blocks whose budget may be used in advance.

    Raises:
        ValueError: The budget or λ is out of range.
    """

    ERROR_GAIN = 0.10
    SURPLUS_GAIN = 0.002
    MAX_MOVE = 0.5

    def __init__(self, budget: float, *, length_step: int, lmbda: float | None = None, burst: float = 12.0) -> None:
        if not budget >= length_step:
            raise ValueError(f"budget {budget!r} tokens per block, expected at least {length_step}")
        if lmbda is not None and not lmbda > 0:
            raise ValueError(f"lmbda {lmbda!r}, expected a number above 0")
        self.budget, self.length_step, self.lmbda, self.burst = float(budget), length_step, lmbda, burst
        self.tokens = 0
        self.blocks = 0

    def choose(self, scores: ArrayLike) -> int:
        """Choose the length of the next block, in tokens, from its scores `[L]`.

        Raises:
            ValueError: Scores are empty or not finite.
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
            raise ValueError(f"scores of shape {values.shape}, expected finite numbers [L]")
        lengths = np.arange(1, len(values) + 1) * self.length_step
        if self.lmbda is None:
            self.lmbda = self._first_lambda(values)
        allowed = self.budget * (self.blocks + 1 + self.burst) - self.tokens
        fitting = max(1, min(len(values), int(allowed // self.length_step)))
        cost = values + (self.lmbda or 0.0) * lengths
        length = int(lengths[int(np.argmin(cost[:fitting]))])
        self.blocks += 1
        self.tokens += length
        self._update_lambda(length, int(lengths[-1]))
        return length

    def _first_lambda(self, values: Floats) -> float | None:
        """Return the slope at which the hull of these scores uses the budget; None if no length helps."""
        edges = Edges.of(values[None], falling=True)
        if len(edges.slopes) == 0:
            return None
        reached = np.cumsum(edges.widths) * self.length_step + self.length_step
        index = min(int(np.searchsorted(reached, self.budget)), len(edges.slopes) - 1)
        return float(-edges.slopes[index]) / self.length_step

    def _update_lambda(self, length: int, max_length: int) -> None:
        if self.lmbda is None:
            return
        error = (length - self.budget) / self.budget
        surplus = (self.tokens - self.budget * self.blocks) / self.budget
        move = self.ERROR_GAIN * error + self.SURPLUS_GAIN * surplus
        saturated = (move > 0 and length == self.length_step) or (move < 0 and length == max_length)
        if not saturated:  # λ that already has no effect must not run away
            self.lmbda *= math.exp(max(-self.MAX_MOVE, min(self.MAX_MOVE, move)))
