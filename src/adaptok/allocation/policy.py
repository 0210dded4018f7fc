"""How a budget is shared: the scopes of allocation.

Legend: `N` blocks, `G` blocks of a clip, `K` latents of a block, `L` = K / length_step candidate lengths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from adaptok.allocation.knapsack import StreamAllocator, allocate, allocate_exact, allocate_to_target, uniform_lengths
from adaptok.config.choices import Scope
from adaptok.config.model import ModelConfig

Lengths = NDArray[np.int64]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class ClipLayout:
    """Of a clip's tokens: G blocks of up to K latents, the step between candidate lengths, and what a token of a block
    costs where blocks take so many tokens on average: (tokens, λ), fewest tokens first; empty where not known."""

    blocks: int
    latents: int
    length_step: int
    lambdas: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, config: ModelConfig) -> ClipLayout:
        """That of a model; lengths of one without a scorer may be any."""
        length_step = 1 if config.scorer is None else config.scorer.length_step
        lambdas = () if config.scorer is None else config.scorer.lambdas
        return cls(config.tokenizer.blocks, config.tokenizer.latents, length_step, lambdas)

    def lmbda(self, tokens: float) -> float | None:
        """The usual λ at an average number of tokens of a block, geometric between the known ones."""
        if not self.lambdas:
            return None
        known, lambdas = np.array(self.lambdas).T
        return float(np.exp(np.interp(tokens, known, np.log(lambdas))))


@dataclass(frozen=True)
class LengthPolicy:
    """What may be spent, and who shares it.

    Args:
        budget: tokens per clip, on average over what the scope spans; None spends everything, unless there is a
            target. For the scope "batch" it may be a sequence: tokens per block, for each of the G block indices.
        scope: "video": all blocks of a video share; "clip": the blocks of one clip; "batch": the same block of all
            clips of a batch, block index after block index (the official procedure); "stream": each block by itself, at
            a λ that follows the running average.
        target: predicted distortion that those who share may have on average; takes the fewest tokens.
        uniform: spend evenly, whatever the scores say.
    """

    budget: float | Sequence[float] | None = None
    scope: Scope = "video"
    target: float | None = None
    uniform: bool = False

    @property
    def everything(self) -> bool:
        """Every latent is kept."""
        return self.budget is None and self.target is None

    @property
    def causal(self) -> bool:
        """Lengths of a block must be chosen before later blocks are scored."""
        return self.scope in ("batch", "stream") and not self.uniform and not self.everything

    @property
    def needs_scores(self) -> bool:
        return not self.uniform and not self.everything

    def check(self, layout: ClipLayout) -> None:
        """Raise ValueError that names a value that is out of its range."""
        if self.scope not in get_args(Scope):
            raise ValueError(f"scope {self.scope!r}, expected one of {', '.join(get_args(Scope))}")
        if self.budget is not None and self.target is not None:
            raise ValueError(f"budget {self.budget!r} and target {self.target!r} exclude each other; give one of them")
        if self.uniform and self.budget is None:
            raise ValueError("uniform lengths need a budget; give one")
        if self.target is not None and not (math.isfinite(self.target) and self.target > 0):
            raise ValueError(f"target {self.target!r}, expected a distortion above 0")
        if isinstance(self.budget, Sequence) and not isinstance(self.budget, str):
            if self.scope != "batch" or self.uniform or len(self.budget) != layout.blocks:
                raise ValueError(
                    f"budget {list(self.budget)}: a list of {layout.blocks} (tokens for each block index) is for"
                    " the scope 'batch'; expected one number"
                )
            for part in self.budget:
                check_budget(part, 1, ClipLayout(1, layout.latents, layout.length_step))
        elif self.budget is not None:
            check_budget(self.budget, layout.blocks, layout, uniform=self.uniform)

    def lengths(self, scores: Scores | None, blocks: int, layout: ClipLayout) -> Lengths:
        """Lengths `[N]` of the blocks of one video, for the scopes "video" and "clip".

        Args:
            scores: `[N, L]` predicted distortions; None where they are not needed.
        """
        if self.everything:
            return np.full(blocks, layout.latents)
        group = layout.blocks if self.scope == "clip" else blocks
        parts = []
        for first in range(0, blocks, group):
            part = slice(first, min(first + group, blocks))
            parts.append(self._share(None if scores is None else scores[part], part.stop - part.start, layout))
        return np.concatenate(parts)

    def _share(self, scores: Scores | None, blocks: int, layout: ClipLayout) -> Lengths:
        if self.target is not None:
            assert scores is not None
            return allocate_to_target(scores, self.target, length_step=layout.length_step).lengths
        assert self.budget is not None
        assert not isinstance(self.budget, Sequence)
        total = check_budget(self.budget, blocks, layout, uniform=self.uniform)
        if self.uniform:
            return uniform_lengths(blocks, total, layout.latents)
        assert scores is not None
        return allocate(scores, total, length_step=layout.length_step).lengths

    def batch_lengths(self, scores: Scores, block: int, layout: ClipLayout) -> Lengths:
        """Lengths `[B]` of the same block of all clips of a batch from its scores `[B, L]`; `block` is its index."""
        if self.target is not None:
            return allocate_to_target(scores, self.target, length_step=layout.length_step).lengths
        assert self.budget is not None
        budget = self.budget[block] if isinstance(self.budget, Sequence) else self.budget / layout.blocks
        return allocate_exact(scores, budget, length_step=layout.length_step).lengths

    def stream(self, layout: ClipLayout) -> StreamChooser:
        """For choosing lengths one block after the other."""
        return StreamChooser(self, layout)


class StreamChooser:
    """Chooses the length of one block after the other, for the scope "stream"."""

    def __init__(self, policy: LengthPolicy, layout: ClipLayout) -> None:
        self.policy, self.layout, self.blocks, self.spent = policy, layout, 0, 0
        self.allocator = None
        if policy.needs_scores and policy.target is None:
            assert policy.budget is not None
            assert not isinstance(policy.budget, Sequence)
            budget = policy.budget / layout.blocks
            self.allocator = StreamAllocator(budget, length_step=layout.length_step, lmbda=layout.lmbda(budget))

    def choose(self, scores: Scores | None) -> int:
        """Length of the next block from its predicted distortions `[L]`."""
        length = self._choose(scores)
        self.blocks, self.spent = self.blocks + 1, self.spent + length
        return length

    def _choose(self, scores: Scores | None) -> int:
        policy = self.policy
        if policy.everything:
            return self.layout.latents
        if policy.uniform:
            assert policy.budget is not None
            assert not isinstance(policy.budget, Sequence)
            allowed = math.floor(policy.budget * (self.blocks + 1) / self.layout.blocks + 1e-9)
            return min(self.layout.latents, allowed - self.spent)
        assert scores is not None
        if self.allocator is not None:
            return self.allocator.choose(scores)
        assert policy.target is not None
        good = np.flatnonzero(scores <= policy.target)
        level = int(good[0]) if len(good) else int(np.argmin(scores))
        return (level + 1) * self.layout.length_step


def check_budget(budget: float, blocks: int, layout: ClipLayout, *, uniform: bool = False) -> int:
    """Tokens that `blocks` blocks may use in all, at `budget` tokens per clip.

    Args:
        uniform: lengths need not be multiples of the step, nor above 0.

    Raises:
        ValueError: the budget is no number, below what a clip needs at least or above what it can use.
    """
    least = 0 if uniform else layout.length_step
    low, high = max(1, least * layout.blocks), layout.latents * layout.blocks
    try:
        value = float(budget)
    except (TypeError, ValueError):
        value = math.nan
    if not low <= value <= high:
        raise ValueError(
            f"budget {budget!r}, expected {low} to {high} tokens per clip ({layout.blocks} blocks of {least} to"
            f" {layout.latents})"
        )
    return math.floor(value * blocks / layout.blocks + 1e-9)
