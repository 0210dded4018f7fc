"""Length policies: which blocks share a budget, and how their lengths are chosen.

Legend: `N` blocks, `B` clips, `G` blocks per clip, `K` latents per block, `L` = K / length_step candidate lengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from adaptok.allocation.knapsack import allocate, allocate_exact, allocate_to_target, uniform_lengths
from adaptok.allocation.stream import StreamAllocator
from adaptok.config.choices import DEFAULT_EFFORT, Effort, Scope
from adaptok.config.model import ModelConfig

Lengths = NDArray[np.int64]
Scores = NDArray[np.float32]
OFFICIAL_LAYOUT = (4, 512)
"""Blocks per clip and latents per block of the models that the official budgets are for."""
OFFICIAL_BLOCK_BUDGETS: dict[int, tuple[int, ...]] = {
    64: (64, 64, 64, 64),
    128: (284, 80, 72, 72),
    192: (408, 140, 114, 102),
    256: (456, 242, 172, 150),
    320: (478, 342, 246, 210),
    384: (490, 418, 342, 282),
    448: (498, 468, 440, 384),
    512: (512, 512, 512, 512),
}
"""Budget of each block index in the official procedure, by mean tokens per block."""
LengthChooser = Callable[[Scores, int], Lengths]
"""Chooses lengths `[B]` from the scores `[B, L]` of one block of each of B clips, and the block's index in its clip."""


@dataclass(frozen=True)
class ClipLayout:
    """How the tokens of a clip are laid out.

    Args:
        blocks: G, blocks per clip.
        latents: K, latents per block.
        length_step: Distance between candidate lengths, in tokens.
        lambdas: Pairs (tokens per block, λ) in ascending order of tokens: the λ at which blocks of the training data
            take that many tokens on average. Empty if unknown.
    """

    blocks: int
    latents: int
    length_step: int
    lambdas: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, config: ModelConfig) -> ClipLayout:
        """Return the layout of a model. Without a scorer, `length_step` is 1."""
        length_step = 1 if config.scorer is None else config.scorer.length_step
        lambdas = () if config.scorer is None else config.scorer.lambdas
        return cls(config.tokenizer.blocks, config.tokenizer.latents, length_step, lambdas)

    def lmbda(self, tokens: float) -> float | None:
        """Return the usual λ for a number of tokens per block, interpolated geometrically; None if unknown."""
        if not self.lambdas:
            return None
        known, lambdas = np.array(self.lambdas).T
        return float(np.exp(np.interp(tokens, known, np.log(lambdas))))


@dataclass(frozen=True)
class LengthPolicy:
    """How lengths are chosen. Without a budget or target, every token is kept.

    Args:
        budget: Tokens per clip, averaged over the blocks that share the budget. For the scope "batch" it may be a
            sequence of tokens per block, one for each of the G block indices.
        scope: Blocks that share the budget. "video": all blocks of a video. "clip": the blocks of a clip. "batch":
            the same block of all clips in a batch, one block index after another (the official procedure).
            "stream": each block on its own, at a λ that follows the running average.
        target: Largest mean predicted distortion of the blocks that share, as an alternative to a budget. The fewest
            tokens that reach it are kept.
        uniform: Distribute the budget evenly, without looking at the scores.
        effort: How much is computed to score blocks, 0 to 3, for scorers with the target "cumulative" and the scopes
            "video" and "clip". 0 scores once. 1 scores again at the lengths that a clip would get. 2 also decodes it at
            these lengths and near them, and 3 then each block at every length.

    Raises:
        ValueError: A value is invalid, or values exclude each other.
    """

    budget: float | Sequence[float] | None = None
    scope: Scope = "video"
    target: float | None = None
    uniform: bool = False
    effort: int = DEFAULT_EFFORT

    def __post_init__(self) -> None:
        if self.effort not in get_args(Effort):
            raise ValueError(f"effort {self.effort!r}, expected 0 to {get_args(Effort)[-1]}")
        if self.scope not in get_args(Scope):
            raise ValueError(f"scope {self.scope!r}, expected one of {', '.join(get_args(Scope))}")
        if self.budget is not None and self.target is not None:
            raise ValueError(f"budget {self.budget!r} and target {self.target!r} exclude each other; give one of them")
        if self.uniform and self.budget is None:
            raise ValueError("uniform lengths need a budget; give one")
        target = self.target
        if target is not None and not (isinstance(target, Real) and math.isfinite(target) and target > 0):
            raise ValueError(f"target {target!r}, expected a distortion above 0")

    @property
    def keeps_all(self) -> bool:
        """Whether every token is kept."""
        return self.budget is None and self.target is None

    @property
    def causal(self) -> bool:
        """Whether the length of a block must be chosen before later blocks are scored."""
        return self.scope in ("batch", "stream") and self.needs_scores

    @property
    def needs_scores(self) -> bool:
        """Whether lengths depend on scores."""
        return not self.uniform and not self.keeps_all

    def mean_length(self, layout: ClipLayout) -> float | None:
        """Return the budget in tokens per block; None without a budget."""
        if self.budget is None:
            return None
        return float(np.mean(self.budget) if isinstance(self.budget, Sequence) else self.budget / layout.blocks)

    def check(self, layout: ClipLayout) -> None:
        """Check that the budget fits a clip layout.

        Raises:
            ValueError: The budget is not a number, or is out of range.
        """
        if isinstance(self.budget, Sequence) and not isinstance(self.budget, str):
            if self.scope != "batch" or self.uniform or len(self.budget) != layout.blocks:
                raise ValueError(
                    f"budget {list(self.budget)}: a list of {layout.blocks} budgets, one per block index, is only"
                    " valid for the scope 'batch'; expected one number"
                )
            for tokens in self.budget:
                check_budget(tokens, 1, ClipLayout(1, layout.latents, layout.length_step))
        elif self.budget is not None:
            check_budget(self.budget, layout.blocks, layout, uniform=self.uniform)

    def lengths(self, scores: Scores | None, blocks: int, layout: ClipLayout, tiles: int = 1) -> Lengths:
        """Choose the lengths `[N]` of all blocks of one video, for the scopes "video" and "clip".

        `scores` are predicted distortions `[N, L]`; None if `needs_scores` is False. `blocks` is N. If `tiles` clips
        show parts of the same frames, N is ordered by block, then by tile, and these clips share a budget.
        """
        if self.keeps_all:
            return np.full(blocks, layout.latents)
        group = layout.blocks * tiles if self.scope == "clip" else blocks
        lengths = []
        for first in range(0, blocks, group):
            count = min(group, blocks - first)
            lengths.append(
                self._group_lengths(None if scores is None else scores[first : first + count], count, layout)
            )
        return np.concatenate(lengths)

    def _group_lengths(self, scores: Scores | None, blocks: int, layout: ClipLayout) -> Lengths:
        """Choose the lengths of blocks that share one budget."""
        if self.uniform:
            return uniform_lengths(blocks, check_budget(self._number(), blocks, layout, uniform=True), layout.latents)
        assert scores is not None
        if self.target is not None:
            return allocate_to_target(scores, self.target, length_step=layout.length_step).lengths
        total = check_budget(self._number(), blocks, layout)
        return allocate(scores, total, length_step=layout.length_step).lengths

    def batch_lengths(self, scores: Scores, block: int, layout: ClipLayout) -> Lengths:
        """Choose the lengths `[B]` of block `block` of each clip of a batch from its scores `[B, L]`."""
        if self.target is not None:
            return allocate_to_target(scores, self.target, length_step=layout.length_step).lengths
        assert self.budget is not None
        budget = self.budget[block] if isinstance(self.budget, Sequence) else self.budget / layout.blocks
        return allocate_exact(scores, budget, length_step=layout.length_step).lengths

    def chooser(self, layout: ClipLayout) -> LengthChooser:
        """Return the function that chooses the lengths of a causal policy. For streams it has state; see `stream`."""
        return self.stream(layout) if self.scope == "stream" else partial(self.batch_lengths, layout=layout)

    def stream(self, layout: ClipLayout) -> StreamChooser:
        """Begin a stream, whose lengths are chosen one block at a time."""
        return StreamChooser(self, layout)

    def _number(self) -> float:
        """Return the budget of policies that need a single number."""
        assert self.budget is not None
        assert not isinstance(self.budget, Sequence)
        return self.budget


class StreamChooser:
    """Chooses the length of one block of a stream after another."""

    def __init__(self, policy: LengthPolicy, layout: ClipLayout) -> None:
        self.policy, self.layout, self.blocks, self.tokens = policy, layout, 0, 0
        self.allocator: StreamAllocator | None = None
        if policy.needs_scores and policy.target is None:
            budget = policy._number() / layout.blocks
            self.allocator = StreamAllocator(budget, length_step=layout.length_step, lmbda=layout.lmbda(budget))

    def __call__(self, scores: Scores, block: int) -> Lengths:
        """Choose the lengths `[B]` of successive blocks from their scores `[B, L]`. `block` is not used."""
        return np.array([self.choose(row) for row in scores])

    def choose(self, scores: Scores | None) -> int:
        """Choose the length of the next block from its scores `[L]`; None if the policy needs no scores."""
        length = self._choose(scores)
        self.blocks, self.tokens = self.blocks + 1, self.tokens + length
        return length

    def _choose(self, scores: Scores | None) -> int:
        policy = self.policy
        if policy.keeps_all:
            return self.layout.latents
        if policy.uniform:
            allowed = math.floor(policy._number() * (self.blocks + 1) / self.layout.blocks + 1e-9)
            return min(self.layout.latents, allowed - self.tokens)
        assert scores is not None
        if self.allocator is not None:
            return self.allocator.choose(scores)
        assert policy.target is not None
        good = np.flatnonzero(scores <= policy.target)
        level = int(good[0]) if len(good) else int(np.argmin(scores))
        return (level + 1) * self.layout.length_step


def check_budget(budget: float, blocks: int, layout: ClipLayout, *, uniform: bool = False) -> int:
    """Return the number of tokens that `blocks` blocks may use at `budget` tokens per clip.

    `uniform` allows any lengths, from 0 on, instead of multiples of `length_step`.

    Raises:
        ValueError: The budget is not a number, less than a clip needs, or more than a clip can use.
    """
    min_length = 0 if uniform else layout.length_step
    low, high = max(1, min_length * layout.blocks), layout.latents * layout.blocks
    if not isinstance(budget, Real):
        raise ValueError(
            f"budget {budget!r} of type {type(budget).__name__}, expected {low} to {high} tokens per clip as a number"
        )
    if not low <= budget <= high:
        raise ValueError(
            f"budget {budget!r}, expected {low} to {high} tokens per clip ({layout.blocks} blocks of {min_length} to"
            f" {layout.latents})"
        )
    return math.floor(budget * blocks / layout.blocks + 1e-9)


def official_block_budgets(budget: float, layout: ClipLayout) -> tuple[int, ...] | None:
    """Return the budget of each block index in the official procedure (arXiv 2505.17011), for the scope "batch".

    Args:
        budget: A row of the official table, by its mean tokens per block (64, 128, … 512) or by tokens per clip (four
            times as many). 256 and 512 are read as tokens per block.
        layout: Layout of the model's clips.

    Returns:
        None if the table does not hold the budget, or is for other models; the budget is then one of tokens per clip.
    """
    if (layout.blocks, layout.latents) != OFFICIAL_LAYOUT:
        return None
    rows: dict[float, tuple[int, ...]] = {layout.blocks * mean: row for mean, row in OFFICIAL_BLOCK_BUDGETS.items()}
    return (rows | OFFICIAL_BLOCK_BUDGETS).get(budget)
