"""The discriminator: does a clip look real? A plain transformer over patches with a class token.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels, `N` patches of a clip, `D` width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from adaptok.configuration import DiscriminatorConfig, StackConfig, TokenizerConfig
from adaptok.models.layers import NORM_EPS, Plan, Segment, TransformerStack, initialize_linears
from adaptok.models.patches import patchify
from adaptok.models.positions import sincos_3d


class Discriminator(nn.Module):
    """Clips to one logit each; every patch sees every other, of all frames.

    Args:
        config: its sizes.
        clips: what a clip is.
    """

    positions: Tensor

    def __init__(self, config: DiscriminatorConfig, clips: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        blocks, grid = clips.frames // config.temporal_patch_size, clips.size // config.patch_size
        if blocks * config.temporal_patch_size != clips.frames or grid * config.patch_size != clips.size:
            raise ValueError(
                f"patches of {config.temporal_patch_size}x{config.patch_size}x{config.patch_size} of the discriminator"
                f" do not divide clips of {clips.frames}x{clips.size}x{clips.size}"
            )
        values = clips.channels * config.temporal_patch_size * config.patch_size**2
        self.embedding = nn.Linear(values, config.width)
        self.register_buffer("positions", sincos_3d(blocks, grid, config.width), persistent=False)
        self.class_token = nn.Parameter(torch.randn(config.width) * config.width**-0.5)
        self.stack = TransformerStack(StackConfig(width=config.width, depth=config.depth, heads=config.heads))
        self.final_norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.head = nn.Linear(config.width, 1)
        initialize_linears(self)

    def forward(self, clips: Tensor) -> Tensor:
        """`[B, C, T, S, S]` in [0, 1] to logits `[B]`; larger is more real."""
        config = self.config
        patches = patchify(clips.to(self.embedding.weight.dtype), config.patch_size, config.temporal_patch_size)
        x = self.embedding(patches.flatten(1, 2) * 2 - 1) + self.positions
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], 1)
        everything, first = slice(0, x.shape[1]), slice(0, 1)
        plan = Plan((Segment(everything, (everything,)),), (first,), (Segment(first, (everything,)),))
        return self.head(self.final_norm(self.stack(x, plan)))[:, 0, 0].float()
