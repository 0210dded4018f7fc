"""Objective of the scorer.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels, `g` blocks of the clips given, `K` latents of a block, `L`
candidate lengths, `D` width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from adaptok.codec.length_selection import measure_block
from adaptok.config.training import TrainingConfig
from adaptok.models.model import Model
from adaptok.training.objectives.base import LossOutput, Objective, StepContext
from adaptok.training.objectives.lengths import draw_lengths
from adaptok.training.objectives.perceptual import LpipsNetworks


class ScorerObjective(Objective):
    """Prediction of the distortion of a random block at every candidate length, given the blocks before it at random
    lengths.

    The tokenizer is frozen; the true distortions are measured by decoding.
    """

    def __init__(self, model: Model, config: TrainingConfig, networks: LpipsNetworks) -> None:
        super().__init__()
        assert model.scorer is not None
        self.model, self.config, self.networks, self.scorer = model, config, networks, model.scorer
        model.tokenizer.requires_grad_(False)

    def trained_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Yield the parameters of the scorer."""
        return (item for item in self.model.named_parameters() if item[0].startswith("scorer."))

    def forward(self, clips: Tensor, context: StepContext) -> LossOutput:
        """Compute the loss of clips `[B, C, T, S, S]` in [0, 1]."""
        tokenizer = self.model.tokenizer
        block = int(torch.randint(tokenizer.config.blocks, (), generator=context.cpu_generator))
        earlier = draw_lengths(self.config.lengths, 1, tokenizer.config.blocks, context.cpu_generator)[0][:block]
        with torch.no_grad():
            clips = clips[:, :, : (block + 1) * tokenizer.config.temporal_patch_size]
            encoded = tokenizer.encode(clips)
            inputs = tokenizer.project_codes(tokenizer.quantize(encoded).codes)
            distortions = self.measure_distortions(clips, inputs, earlier)
            target = self.scorer.normalize(distortions)
        lengths = [[*earlier, tokenizer.config.latents]] * len(clips)
        scores = self.scorer(encoded, inputs, lengths)[:, block]
        error = scores - target
        relative = (self.scorer.denormalize(scores.detach()) / distortions.clamp(min=1e-8) - 1).abs()
        return LossOutput(error.square().mean(), {"relative_error": relative.mean()})

    def measure_distortions(self, clips: Tensor, inputs: Tensor, earlier: list[int]) -> Tensor:
        """Measure the distortion of the last block of `clips` at every candidate length.

        Args:
            clips: `[B, C, T, S, S]` in [0, 1].
            inputs: `[B, g, K, D]` decoder inputs of its blocks.
            earlier: lengths of the blocks before the last, the same for all clips.

        Returns:
            `[B, L]` distortions.
        """
        tokenizer, config = self.model.tokenizer, self.scorer.config
        target = clips[:, :, len(earlier) * tokenizer.config.temporal_patch_size :]
        lengths = range(config.length_step, tokenizer.config.latents + 1, config.length_step)
        return measure_block(tokenizer, target, inputs, earlier, lengths, config.distortion, self.networks.lpips)
