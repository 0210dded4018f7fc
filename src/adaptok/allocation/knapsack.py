"""Exact allocation of tokens: a multiple-choice knapsack with one choice per block.

Legend: `N` blocks, `L` candidate lengths: the multiples of `length_step` up to `L * length_step`. `scores[n, j]` is the
predicted distortion of block n at `(j + 1) * length_step` tokens, any finite number. Internally, lengths are levels
`0 … L - 1`, and budgets are capacities in levels above the shortest lengths.

The edges of the lower convex hulls of all blocks, sorted by slope, solve the linear relaxation (Sinha and Zoltners
1979, doi:10.1287/opre.27.3.503). This gives λ, a lower bound, and a solution that is nearly always close to optimal.
Options whose reduced cost at λ exceeds the remaining gap cannot be part of a better solution; dynamic programming over
the few blocks that still have a choice closes the gap. If there are too many of these, the solution is returned with
its gap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adaptok.allocation.hull import Edges, Floats, Ints

WORK_LIMIT = 20_000_000
"""Largest product of table entries and options in dynamic programming, which takes about half a second."""
_NEAR_OPTIONS = 4096
"""Number of options of the lowest reduced cost that are tried in pairs to fill the capacity that sorted edges leave."""


@dataclass(frozen=True)
class Allocation:
    """Lengths of all blocks.

    Attributes:
        lengths: int64, in tokens, with the shape of the scores without their last dimension.
        distortion: Sum of the scores at these lengths.
        tokens: Sum of the lengths.
        lmbda: λ, the distortion that one more token must save; 0 if the budget is not binding. It may be negative if
            all of the budget must be used.
        gap: Largest possible difference between this distortion and the optimum. 0 if the lengths are proved optimal.
    """

    lengths: Ints
    distortion: float
    tokens: int
    lmbda: float
    gap: float


def allocate(scores: ArrayLike, tokens: float, *, length_step: int) -> Allocation:
    """Minimize the total distortion with at most `tokens` tokens in total.

    Args:
        scores: `[..., L]`; every leading index is a block.
        tokens: Number of tokens for all blocks together.
        length_step: Distance between candidate lengths, in tokens; at least 1.

    Raises:
        ValueError: Scores are empty or not finite, or the tokens do not suffice for the shortest length of every block.
    """
    problem = _Problem(scores, length_step)
    return problem.allocation(*problem.solve(problem.capacity(tokens)))


def allocate_exact(scores: ArrayLike, budget: float, *, length_step: int) -> Allocation:
    """Minimize the total distortion using all of the budget, even where more tokens do not help.

    This is the official procedure. The levels of the N blocks sum to exactly `(N * budget) // length_step - N`, or to
    the largest possible sum if that is less.

    Args:
        scores, length_step: As for `allocate`.
        budget: Mean number of tokens per block.

    Raises:
        ValueError: As for `allocate`.
    """
    problem = _Problem(scores, length_step)
    capacity = min(problem.capacity(problem.blocks * budget), problem.blocks * (problem.levels - 1))
    return problem.allocation(*problem.solve(capacity, exact=True))


def allocate_to_target(scores: ArrayLike, target: float, *, length_step: int) -> Allocation:
    """Minimize the tokens whose mean score over the blocks is at most `target`, and then the distortion.

    If the returned `gap` is above 0, `tokens` may exceed the minimum by less than one `length_step`.

    Args:
        scores, length_step: As for `allocate`.
        target: Largest mean distortion.

    Raises:
        ValueError: No lengths reach the target, or as for `allocate`.
    """
    problem = _Problem(scores, length_step)
    best = float(problem.scores.min(1).mean())
    if not target >= best:
        raise ValueError(
            f"target {target!r}, expected at least {best:g}, the lowest mean distortion that these blocks can reach"
        )
    total = max(target, best) * problem.blocks
    total += 1e-12 * max(1.0, abs(total))  # floating-point sums depend on their order
    low, high = problem.capacities_for(total)
    while low < high:
        middle = (low + high) // 2
        if problem.cost(problem.solve(middle)[0]) <= total:
            high = middle
        else:
            low = middle + 1
    return problem.allocation(*problem.solve(high))


def uniform_lengths(blocks: int, tokens: int, latents: int) -> Ints:
    """Return lengths `[blocks]` that are as even as possible and sum to `tokens`, at most `latents` each."""
    total = min(tokens, blocks * latents)
    return np.diff(np.arange(blocks + 1) * total // max(blocks, 1))


class _Problem:
    """The scores of an allocation, and the edges of their convex hulls, which all budgets use."""

    def __init__(self, scores: ArrayLike, length_step: int) -> None:
        given = np.asarray(scores, dtype=np.float64)
        if given.ndim < 1 or given.size == 0:
            raise ValueError(f"scores of shape {given.shape}, expected [..., L] with at least one block and one length")
        if length_step < 1:
            raise ValueError(f"length_step {length_step}, expected at least 1 token")
        self.shape, self.length_step = given.shape[:-1], length_step
        self.scores = given.reshape(-1, given.shape[-1])
        if not np.isfinite(self.scores.sum()) and not np.isfinite(self.scores).all():
            raise ValueError("NaN or infinite scores, expected finite numbers; check the model")
        self.blocks, self.levels = self.scores.shape

    @cached_property
    def falling(self) -> Edges:
        """Edges that lower the score."""
        return Edges.of(self.scores, falling=True)

    def capacity(self, tokens: float) -> int:
        """Convert a number of tokens to levels above the shortest lengths."""
        minimum = self.blocks * self.length_step
        if not tokens >= minimum:
            raise ValueError(
                f"{tokens!r} tokens for {self.blocks} blocks, expected at least {minimum}: {self.length_step} for each"
            )
        return int(min(tokens, minimum * self.levels) // self.length_step) - self.blocks

    def cost(self, choice: Ints) -> float:
        return float(self.scores[np.arange(self.blocks), choice].sum())

    def allocation(self, choice: Ints, lmbda: float, gap: float) -> Allocation:
        lengths = (choice + 1).reshape(self.shape) * self.length_step
        return Allocation(lengths, self.cost(choice), int(lengths.sum()), lmbda / self.length_step, gap)

    def capacities_for(self, total: float) -> tuple[int, int]:
        """Return bounds of the smallest capacity whose solution has a sum of scores of at most `total`."""
        edges = self.falling
        start = float(self.scores[:, 0].sum())
        if start <= total:
            return 0, 0
        after = start + np.cumsum(edges.slopes * edges.widths)
        used = np.cumsum(edges.widths)
        index = int(np.searchsorted(-after, -total))  # first edge after which the sum is low enough
        if index >= len(after):
            return int(used[-1]), int(used[-1])
        before = after[index] - edges.slopes[index] * edges.widths[index]
        part = math.floor((total - before) / edges.slopes[index])  # levels of that edge in the relaxation
        return int(used[index] - edges.widths[index]) + max(0, part), int(used[index])

    def solve(self, capacity: int, *, exact: bool = False) -> tuple[Ints, float, float]:
        """Return levels `[N]` that sum to at most, or exactly, `capacity`, λ per level, and the gap."""
        edges = Edges.of(self.scores, falling=False) if exact else self.falling
        used = np.cumsum(edges.widths)
        taken = int(np.searchsorted(used, capacity, side="right"))
        choice = np.zeros(self.blocks, np.int64)
        np.add.at(choice, edges.blocks[:taken], edges.widths[:taken])
        left = capacity - int(used[taken - 1]) if taken else capacity
        if taken == len(edges.slopes) or left == 0:  # all useful edges fit, or no capacity remains
            is_binding = len(edges.slopes) > 0 and (exact or taken < len(edges.slopes))
            lmbda = -float(edges.slopes[max(taken - 1, 0)]) if is_binding else 0.0
            return choice, lmbda, 0.0
        lmbda = -float(edges.slopes[taken])
        reduced = self.scores + lmbda * np.arange(self.levels)
        reduced -= reduced.min(1, keepdims=True)
        choice, gap = _fill(reduced, choice, left, lmbda, exact)
        slack = 1e-13 * (1 + float(np.abs(self.scores).max()))
        if gap <= slack:
            return choice, lmbda, 0.0
        better = _finish(reduced, capacity, lmbda, gap, exact)
        if better is None:
            return choice, lmbda, gap
        return (choice if len(better) == 0 else better), lmbda, 0.0


def _fill(reduced: Floats, choice: Ints, left: int, lmbda: float, exact: bool) -> tuple[Ints, float]:
    """Change one or two blocks to make the best use of the `left` remaining levels. Return the choice and its gap."""
    levels = reduced.shape[1]
    near = reduced.copy()
    near[np.arange(len(near)), choice] = np.inf
    flat = near.reshape(-1)
    count = min(_NEAR_OPTIONS, flat.size)
    picked = np.argpartition(flat, count - 1)[:count] if count < flat.size else np.arange(flat.size)
    picked = picked[np.argsort(flat[picked], kind="stable")]
    block, level = picked // levels, picked % levels
    move = level - choice[block]
    deltas = [delta for delta in range(1 - levels, levels) if delta]
    options: dict[int, list[int]] = {delta: np.flatnonzero(move == delta)[:2].tolist() for delta in deltas}  # two best
    best = math.inf if exact else lmbda * left  # the gap: reduced costs, and lmbda for each unused level
    change: tuple[int, ...] = ()
    trials: list[tuple[int, ...]] = [(index,) for row in options.values() for index in row]
    trials += [
        (i, k)
        for a, first in options.items()
        for b, second in options.items()
        if a <= b and (a + b == left or (not exact and 0 < a + b <= left))
        for i in first
        for k in second
        if block[i] != block[k]
    ]
    for trial in trials:
        unused = left - sum(int(move[i]) for i in trial)
        if unused < 0 or (exact and unused):
            continue
        value = sum(float(flat[picked[i]]) for i in trial) + lmbda * unused
        if value < best:
            best, change = value, trial
    changed = choice.copy()
    for i in change:
        changed[block[i]] = level[i]
    if best == math.inf:  # no pair of changes reaches the exact sum
        return _fill_in_order(changed, left, levels, reduced)
    return changed, best


def _fill_in_order(choice: Ints, left: int, levels: int, reduced: Floats) -> tuple[Ints, float]:
    """Raise one block after another until all `left` levels are used."""
    room = levels - 1 - choice
    before = np.concatenate([[0], np.cumsum(room)[:-1]])
    choice = choice + np.clip(left - before, 0, room)
    return choice, float(reduced[np.arange(len(choice)), choice].sum())


def _finish(reduced: Floats, capacity: int, lmbda: float, gap: float, exact: bool) -> Ints | None:
    """Return the optimal levels `[N]`, none if no gap is smaller than `gap`, or None if there are too many options."""
    alive = reduced < gap
    first = reduced.argmin(1)
    core = np.flatnonzero(alive.sum(1) > 1)
    low = np.where(alive[core], np.arange(reduced.shape[1]), reduced.shape[1]).min(1)
    high = np.where(alive[core], np.arange(reduced.shape[1]), -1).max(1)
    room = capacity - int(first.sum()) + int(first[core].sum()) - int(low.sum())  # levels above `low` for the core
    size = min(room, int((high - low).sum())) + 1
    if room < 0:
        return np.zeros(0, np.int64)
    if int(alive[core].sum()) * size > WORK_LIMIT:
        return None
    value, table = _fill_table(reduced[core], alive[core], low, high, gap, size)
    totals = value + lmbda * (room - np.arange(size))
    if exact:
        totals[:room] = np.inf
    used = int(np.argmin(totals))
    if not totals[used] < gap:
        return np.zeros(0, np.int64)
    result: Ints = first.astype(np.int64)
    for index in range(len(core) - 1, -1, -1):
        level = int(table[index, used])
        result[core[index]] = level
        used -= level - int(low[index])
    return result


def _fill_table(
    reduced: Floats, alive: NDArray[np.bool_], low: Ints, high: Ints, gap: float, size: int
) -> tuple[Floats, NDArray[np.integer[Any]]]:
    """Return the lowest sums `[size]` of reduced costs for each number of levels used, and their levels `[N, size]`."""
    value = np.full(size, np.inf)
    value[0] = 0.0
    table = np.zeros((len(reduced), size), np.int8 if reduced.shape[1] < 128 else np.int64)
    reach = 0
    for index, costs in enumerate(reduced):
        reach = min(size - 1, reach + int(high[index] - low[index]))
        after = np.full(size, np.inf)
        chosen = table[index]
        for level in np.flatnonzero(alive[index]).tolist():
            shift = int(level - low[index])
            if shift > reach:
                break
            trial = value[: reach + 1 - shift] + costs[level]
            part = after[shift : reach + 1]
            closer = trial < part
            np.copyto(part, trial, where=closer)
            np.copyto(chosen[shift : reach + 1], level, where=closer)
        after[after >= gap] = np.inf
        value = after
    return value, table
