"""Lengths of clips whose first blocks belong to a condition and keep every token.

Legend: `B` clips, `G` blocks per clip, `K` latents per block, `L` candidate lengths.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adaptok.allocation.policy import ClipLayout, LengthChooser, LengthPolicy, Lengths, Scores, StreamChooser
from adaptok.config.model import ModelConfig
from adaptok.data.token_datasets import TokenDatasetInfo


class LengthSelector:
    """Chooses the lengths of clips by the settings of a dataset.

    Attributes:
        policy: Policy for the free blocks, with their part of the budget.
        scored_for: Policy for all blocks of a clip, which scores are computed for.
        layout: Layout of the free blocks of a clip.
        first_block: Index of the first free block. Blocks before it keep every token.
    """

    def __init__(self, info: TokenDatasetInfo, model: ModelConfig) -> None:
        settings, layout, self.first_block = info.settings, ClipLayout.of(model), info.first_block
        self.layout = replace(layout, blocks=layout.blocks - self.first_block)
        budget = settings.budget
        if budget is not None and not isinstance(budget, tuple):  # a tuple has one budget per block
            budget = budget * (self.layout.blocks / layout.blocks)
        self.policy = LengthPolicy(budget, settings.scope, settings.target, settings.uniform, settings.effort)
        self.scored_for = replace(self.policy, budget=settings.budget)

    def chooser(self, stream: StreamChooser | None = None) -> LengthChooser:
        """Return the chooser of the clips of a batch, or of one clip of a stream."""
        choose = stream or self._choose_batch
        first, latents = self.first_block, self.layout.latents
        return lambda scores, block: np.full(len(scores), latents) if block < first else choose(scores, block)

    def select(self, scores: Scores | None, clips: int) -> Lengths:
        """Choose the lengths `[B, G]` of all clips of a video, for the scopes "video" and "clip".

        `scores` are `[B, G, L]`, or None if the policy needs none.
        """
        if self.policy.scope == "clip":
            rows = [None] * clips if scores is None else scores[:, None]
            return np.concatenate([self._select_shared(row, 1) for row in rows])
        return self._select_shared(scores, clips)

    def _select_shared(self, scores: Scores | None, clips: int) -> Lengths:
        """Choose the lengths of clips that share one budget."""
        free = None if scores is None else scores[:, self.first_block :].reshape(-1, scores.shape[-1])
        chosen = _reachable(self.policy, free).lengths(free, clips * self.layout.blocks, self.layout)
        return np.pad(chosen.reshape(clips, -1), ((0, 0), (self.first_block, 0)), constant_values=self.layout.latents)

    def _choose_batch(self, scores: Scores, block: int) -> Lengths:
        return _reachable(self.policy, scores).batch_lengths(scores, block, self.layout)


def _reachable(policy: LengthPolicy, scores: Scores | None) -> LengthPolicy:
    """Replace a target that these blocks cannot reach by their best one, so that one video does not stop the run."""
    if policy.target is None or scores is None:
        return policy
    best = float(scores.astype(np.float64).min(1).mean())
    return policy if policy.target >= best else replace(policy, target=best * (1 + 1e-6))
