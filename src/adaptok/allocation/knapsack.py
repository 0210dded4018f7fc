"""Lengths for a budget: a multiple-choice knapsack, one choice per block, solved exactly.

Legend: `N` blocks, `L` candidate lengths: the multiples of `length_step` up to `L length_step`. `scores[n, j]` is the
predicted distortion of block n at `(j + 1) length_step` tokens: any finite number. Inside,
lengths are levels `0 … L - 1`, and the budget is a capacity in levels above the least.

How: the lower convex hulls of all blocks, their edges sorted by slope, give the solution of the linear relaxation. It
gives λ, a lower bound (Sinha and Zoltners 1979, doi:10.1287/opre.27.3.503), and a solution that is nearly always
within a hair of it. Options whose reduced cost at that λ exceeds what is left of the gap cannot be in a better
solution; over the few blocks that still have a choice, dynamic programming finishes. Where even those are too many,
the gap is returned as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

WORK_LIMIT = 20_000_000
"""Table entries times options that the dynamic programme may take; about half a second."""
_NEAR_OPTIONS = 4096
"""Options of the least reduced cost that are tried in pairs to fill what the sorted edges leave over."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Allocation:
    """Lengths, and what they are predicted to cost.

    Attributes:
        lengths: int64, in tokens, of the shape of the scores without their last dimension.
        distortion: sum of the scores at these lengths.
        tokens: sum of the lengths.
        lmbda: distortion that one more token must save to be worth it; 0 where the budget does not bind. Where all of
            it must be spent it may be negative.
        gap: the optimum is at most this much lower; 0 where the lengths are proved to be optimal.
    """

    lengths: Ints
    distortion: float
    tokens: int
    lmbda: float
    gap: float


def allocate(scores: ArrayLike, tokens: float, *, length_step: int) -> Allocation:
    """The least distortion for at most `tokens` tokens in all.

    Args:
        scores: `[..., L]`; every leading index is a block.
        length_step: tokens between candidate lengths, at least 1.

    Raises:
        ValueError: a score is not finite, there are none, or the budget does not reach the least length of every block.
    """
    problem = _Problem(scores, length_step)
    capacity = problem.capacity(tokens)
    return problem.allocation(*problem.at_most(capacity))


def allocate_exact(scores: ArrayLike, budget: float, *, length_step: int) -> Allocation:
    """The official procedure: all of the budget is spent, whether it helps or not.

    The levels of the N blocks sum to exactly `(N budget) // length_step - N`, or to the nearest sum that there is.

    Args:
        scores: `[..., L]`.
        budget: tokens per block, on average.

    Raises:
        ValueError: as for `allocate`.
    """
    problem = _Problem(scores, length_step)
    levels = problem.capacity(problem.blocks * budget)
    return problem.allocation(*problem.exactly(min(levels, problem.blocks * (problem.levels - 1))))


def allocate_to_target(scores: ArrayLike, target: float, *, length_step: int) -> Allocation:
    """The fewest tokens whose mean score over the blocks is at most `target`, and of those the least distortion.

    Where `gap` is above 0, `tokens` may be more than the fewest by less than one candidate length.

    Raises:
        ValueError: no lengths reach the target, or as for `allocate`.
    """
    problem = _Problem(scores, length_step)
    best = float(problem.scores.min(1).mean())
    if not target >= best:
        raise ValueError(
            f"target {target!r}: the best that these blocks can reach is a mean of {best:g}; expected at least that"
        )
    total = max(target, best) * problem.blocks
    total += 1e-12 * max(1.0, abs(total))  # the sum of the best is the best, however it was added
    low, high = problem.capacities_for(total)
    while low < high:
        middle = (low + high) // 2
        if problem.cost(problem.at_most(middle)[0]) <= total:
            high = middle
        else:
            low = middle + 1
    return problem.allocation(*problem.at_most(high))


def uniform_lengths(blocks: int, tokens: int, latents: int) -> Ints:
    """Lengths `[blocks]` as even as they can be, with the sum `tokens`, or all latents where that is less."""
    total = min(tokens, blocks * latents)
    return np.diff(np.arange(blocks + 1) * total // max(blocks, 1))


class _Problem:
    """Scores with what every budget needs of them: the hulls' edges in the order of their slopes."""

    def __init__(self, scores: ArrayLike, length_step: int) -> None:
        given = np.asarray(scores, dtype=np.float64)
        if given.ndim < 1 or given.size == 0:
            raise ValueError(f"scores of shape {given.shape}, expected [..., L] with one block and one length or more")
        if length_step < 1:
            raise ValueError(f"length_step {length_step}, expected 1 token or more")
        self.shape, self.length_step = given.shape[:-1], length_step
        self.scores = given.reshape(-1, given.shape[-1])
        if not np.isfinite(self.scores.sum()) and not np.isfinite(self.scores).all():
            raise ValueError("scores that are NaN or infinite, expected finite numbers")
        self.blocks, self.levels = self.scores.shape
        self._falling: _Edges | None = None

    @property
    def falling(self) -> _Edges:
        """Edges that lower the score."""
        if self._falling is None:
            self._falling = _Edges.of(self.scores, falling=True)
        return self._falling

    def capacity(self, tokens: float) -> int:
        """Levels above the least that `tokens` tokens allow."""
        least = self.blocks * self.length_step
        if not tokens >= least:
            raise ValueError(
                f"{tokens!r} tokens for {self.blocks} blocks, expected {least} or more: {self.length_step} for each"
            )
        return int(min(tokens, least * self.levels) // self.length_step) - self.blocks

    def cost(self, choice: Ints) -> float:
        return float(self.scores[np.arange(self.blocks), choice].sum())

    def allocation(self, choice: Ints, lmbda: float, gap: float) -> Allocation:
        lengths = (choice + 1) * self.length_step
        return Allocation(
            lengths.reshape(self.shape), self.cost(choice), int(lengths.sum()), lmbda / self.length_step, gap
        )

    def at_most(self, capacity: int) -> tuple[Ints, float, float]:
        """Levels `[N]` with a sum up to `capacity`, the λ of a level, and the gap."""
        return self._solve(self.falling, capacity, exact=False)

    def exactly(self, capacity: int) -> tuple[Ints, float, float]:
        """Levels `[N]` with the sum `capacity`, the λ of a level, and the gap."""
        return self._solve(_Edges.of(self.scores, falling=False), capacity, exact=True)

    def capacities_for(self, total: float) -> tuple[int, int]:
        """Capacities between which the least one lies that allows a sum of scores up to `total`."""
        edges = self.falling
        start = float(self.scores[:, 0].sum())
        if start <= total:
            return 0, 0
        after = start + np.cumsum(edges.slopes * edges.widths)
        used = np.cumsum(edges.widths)
        index = int(np.searchsorted(-after, -total))  # the first edge after which the sum is low enough
        if index >= len(after):
            return int(used[-1]), int(used[-1])
        before = after[index] - edges.slopes[index] * edges.widths[index]
        part = math.floor((total - before) / edges.slopes[index])  # of that edge, in the relaxation
        return int(used[index] - edges.widths[index]) + max(0, part), int(used[index])

    def _solve(self, edges: _Edges, capacity: int, exact: bool) -> tuple[Ints, float, float]:
        used = np.cumsum(edges.widths)
        taken = int(np.searchsorted(used, capacity, side="right"))
        choice = np.zeros(self.blocks, np.int64)
        np.add.at(choice, edges.blocks[:taken], edges.widths[:taken])
        left = capacity - int(used[taken - 1]) if taken else capacity
        if taken == len(edges.slopes) or left == 0:  # everything that helps fits, or it comes out even
            at_end = taken == len(edges.slopes) and not exact
            lmbda = 0.0 if at_end or taken == 0 else -float(edges.slopes[taken - 1])
            if taken == 0 and len(edges.slopes):
                lmbda = -float(edges.slopes[0])
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


@dataclass(frozen=True)
class _Edges:
    """Edges of the lower convex hulls of all blocks, steepest descent first.

    Attributes:
        blocks: `[E]` whose they are.
        widths: `[E]` levels that they span.
        slopes: `[E]` score per level, ascending.
    """

    blocks: Ints
    widths: Ints
    slopes: Floats

    @classmethod
    def of(cls, scores: Floats, falling: bool) -> _Edges:
        """Edges of `scores [N, L]`; with `falling` only those that lower the score."""
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
                closer = slope <= best if level > 1 else slope < best  # of equal slopes the longest edge
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


def _fill(reduced: Floats, choice: Ints, left: int, lmbda: float, exact: bool) -> tuple[Ints, float]:
    """Change one or two blocks so that the `left` levels are used best.

    Distortion above the bound is the sum of reduced costs plus `lmbda` for each level that stays unused.

    Returns:
        The new choice, and that distortion: the gap.
    """
    levels = reduced.shape[1]
    near = reduced.copy()
    near[np.arange(len(near)), choice] = np.inf
    flat = near.reshape(-1)
    count = min(_NEAR_OPTIONS, flat.size)
    picked = np.argpartition(flat, count - 1)[:count] if count < flat.size else np.arange(flat.size)
    picked = picked[np.argsort(flat[picked], kind="stable")]
    block, level = picked // levels, picked % levels
    move = level - choice[block]
    options: dict[int, list[int]] = {}  # by levels moved: the best options of two different blocks
    for delta in range(1 - levels, levels):
        if delta == 0:
            continue
        own = np.flatnonzero(move == delta)[:2]
        options[delta] = [int(i) for i in own if np.isfinite(flat[picked[i]])]
    best = math.inf if exact else lmbda * left
    change: tuple[int, ...] = ()
    trials: list[tuple[int, ...]] = [(index,) for found in options.values() for index in found]
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
    if best == math.inf:  # nothing of two blocks comes out even: take single levels, as they come
        return _spend(changed, left, levels, reduced)
    return changed, best


def _spend(choice: Ints, left: int, levels: int, reduced: Floats) -> tuple[Ints, float]:
    """Raise blocks, the first first, until `left` levels are used; for exact sums that no pair of changes reaches."""
    room = levels - 1 - choice
    before = np.concatenate([[0], np.cumsum(room)[:-1]])
    choice = choice + np.clip(left - before, 0, room)
    return choice, float(reduced[np.arange(len(choice)), choice].sum())


def _finish(reduced: Floats, capacity: int, lmbda: float, gap: float, exact: bool) -> Ints | None:
    """Dynamic programming over the options that can be part of something better than `gap` above the bound.

    Returns:
        The optimal levels `[N]`; none, `[0]`, if nothing is better; None if there are too many options.
    """
    alive = reduced < gap
    first = reduced.argmin(1)
    core = np.flatnonzero(alive.sum(1) > 1)
    low = np.where(alive[core], np.arange(reduced.shape[1]), reduced.shape[1]).min(1)
    high = np.where(alive[core], np.arange(reduced.shape[1]), -1).max(1)
    room = capacity - int(first.sum()) + int(first[core].sum()) - int(low.sum())  # levels for the core above its least
    most = min(room, int((high - low).sum()))
    options = int(alive[core].sum())
    if room < 0:
        return np.zeros(0, np.int64)
    if options * (most + 1) > WORK_LIMIT:
        return None
    value = np.full(most + 1, np.inf)
    value[0] = 0.0
    table = np.zeros((len(core), most + 1), np.int8 if reduced.shape[1] < 128 else np.int64)
    reach = 0
    for index, n in enumerate(core.tolist()):
        reach = min(most, reach + int(high[index] - low[index]))
        after = np.full(most + 1, np.inf)
        chosen = table[index]
        for level in np.flatnonzero(alive[n]).tolist():
            shift = int(level - low[index])
            if shift > reach:
                break
            trial = value[: reach + 1 - shift] + reduced[n, level]
            part = after[shift : reach + 1]
            closer = trial < part
            np.copyto(part, trial, where=closer)
            np.copyto(chosen[shift : reach + 1], level, where=closer)
        after[after >= gap] = np.inf
        value = after
    totals = value + lmbda * (room - np.arange(most + 1))
    if exact:
        totals[:room] = np.inf
    spent = int(np.argmin(totals))
    if not totals[spent] < gap:
        return np.zeros(0, np.int64)
    result: Ints = first.astype(np.int64)
    for index in range(len(core) - 1, -1, -1):
        level = int(table[index, spent])
        result[core[index]] = level
        spent -= level - int(low[index])
    return result


class StreamAllocator:
    """Price-controlled lengths, one block at a time, knowing nothing of later blocks.

    A block is extended while that saves at least λ per token. λ starts where the first block would
    spend the budget, and then follows the running average: a controller of its logarithm on the last block's error and
    on the surplus so far, so the scale of the scores does not matter. The tokens so far never exceed the budget of the
    blocks so far by more than `burst` blocks' worth, and one step per block.

    Args:
        budget: tokens per block, on average.
        length_step: tokens between candidate lengths.
        lmbda: to start with, in distortion per token; found from the first block if None.
        burst: blocks' worth of tokens that may be spent ahead.
    """

    ERROR_GAIN = 0.10
    SURPLUS_GAIN = 0.002
    LARGEST_MOVE = 0.5

    def __init__(self, budget: float, *, length_step: int, lmbda: float | None = None, burst: float = 12.0) -> None:
        if not budget >= length_step:
            raise ValueError(f"budget {budget!r} tokens a block, expected {length_step} or more")
        if lmbda is not None and not lmbda > 0:
            raise ValueError(f"lmbda {lmbda!r}, expected a number above 0")
        self.budget, self.length_step, self.lmbda, self.burst = float(budget), length_step, lmbda, burst
        self.spent = 0
        self.blocks = 0

    def choose(self, scores: ArrayLike) -> int:
        """Length of the next block, in tokens, from its scores `[L]`.

        Raises:
            ValueError: a score is not finite, or there are none.
        """
        values = np.asarray(scores, dtype=np.float64)
        if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
            raise ValueError(f"scores of shape {values.shape}, expected finite numbers [L]")
        lengths = np.arange(1, len(values) + 1) * self.length_step
        if self.lmbda is None:
            self.lmbda = self._first_lambda(values)
        allowed = self.budget * (self.blocks + 1 + self.burst) - self.spent
        fitting = max(1, min(len(values), int(allowed // self.length_step)))
        cost = values + (self.lmbda or 0.0) * lengths
        length = int(lengths[int(np.argmin(cost[:fitting]))])
        self.blocks += 1
        self.spent += length
        self._follow(length, int(lengths[-1]))
        return length

    def _first_lambda(self, values: Floats) -> float | None:
        """Where the hull of these scores spends the budget; None where no length helps."""
        edges = _Edges.of(values[None], falling=True)
        if len(edges.slopes) == 0:
            return None
        reached = np.cumsum(edges.widths) * self.length_step + self.length_step
        index = min(int(np.searchsorted(reached, self.budget)), len(edges.slopes) - 1)
        return float(-edges.slopes[index]) / self.length_step

    def _follow(self, length: int, longest: int) -> None:
        if self.lmbda is None:
            return
        error = (length - self.budget) / self.budget
        surplus = (self.spent - self.budget * self.blocks) / self.budget
        move = self.ERROR_GAIN * error + self.SURPLUS_GAIN * surplus
        useless = (move > 0 and length == self.length_step) or (move < 0 and length == longest)
        if not useless:  # λ that already has no effect must not run away
            self.lmbda *= math.exp(max(-self.LARGEST_MOVE, min(self.LARGEST_MOVE, move)))

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on from here."""
        return {"lmbda": self.lmbda, "spent": self.spent, "blocks": self.blocks}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.lmbda, self.spent, self.blocks = state["lmbda"], int(state["spent"]), int(state["blocks"])
