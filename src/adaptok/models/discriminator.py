"""Discriminators: a transformer with one logit per clip, and convolutions with one logit per patch in space and time.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels, `N` patches of a clip, `D` width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.config.discriminator import DiscriminatorConfig, PatchDiscriminatorConfig, TransformerDiscriminatorConfig
from adaptok.config.tokenizer import TokenizerConfig
from adaptok.config.transformer import StackConfig
from adaptok.models.patches import patchify
from adaptok.models.positions import sincos_3d
from adaptok.models.transformer import Plan, TransformerStack, initialize_linears
from adaptok.ops.block_causal_attention import Segment

_GROUPS = 8
_SLOPE = 0.2


class TransformerDiscriminator(nn.Module):
    """Transformer over patches with a class token: one logit per clip. Every patch sees all patches of the clip.

    Args:
        config: sizes.
        clips: format of the clips.

    Raises:
        ValueError: the patches do not divide the clips.
    """

    positions: Tensor

    def __init__(self, config: TransformerDiscriminatorConfig, clips: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        blocks, grid = clips.frames // config.temporal_patch_size, clips.size // config.patch_size
        if blocks * config.temporal_patch_size != clips.frames or grid * config.patch_size != clips.size:
            raise ValueError(
                f"discriminator patches of {config.temporal_patch_size}x{config.patch_size}x{config.patch_size} do not"
                f" divide clips of {clips.frames}x{clips.size}x{clips.size}; change temporal_patch_size or patch_size"
            )
        values = clips.channels * config.temporal_patch_size * config.patch_size**2
        self.embedding = nn.Linear(values, config.width)
        self.register_buffer("positions", sincos_3d(blocks, grid, config.width), persistent=False)
        self.class_token = nn.Parameter(torch.randn(config.width) * config.width**-0.5)
        self.stack = TransformerStack(StackConfig(width=config.width, depth=config.depth, heads=config.heads))
        self.final_norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.head = nn.Linear(config.width, 1)
        initialize_linears(self)

    def forward(self, clips: Tensor) -> Tensor:
        """Compute the logits `[B]` of clips `[B, C, T, S, S]` in [0, 1]; larger is more real."""
        config = self.config
        patches = patchify(clips.to(self.embedding.weight.dtype), config.patch_size, config.temporal_patch_size)
        patches = patches.flatten(1, 2)
        x = self.embedding(patches * 2 - 1 if config.center_input else patches) + self.positions
        x = torch.cat([self.class_token.expand(len(x), 1, -1), x], 1)
        everything, first = slice(0, x.shape[1]), slice(0, 1)
        plan = Plan((Segment(everything, (everything,)),), (first,), (Segment(first, (everything,)),))
        return self.head(self.final_norm(self.stack(x, plan)))[:, 0, 0].float()


class PatchDiscriminator(nn.Module):
    """Strided 3D convolutions: one logit per patch in space and time.

    This is PatchGAN (arXiv 1611.07004, appendix 6.1.2) with a temporal dimension. Each layer is a convolution of
    3 x 4 x 4 with a spatial stride of 2, a normalization except in the first layer, and LeakyReLU; a convolution of
    3 x 3 x 3 gives the logits. With three layers, a logit sees 38 x 38 pixels, and the rest of the clip
    through the statistics of GroupNorm.

    The normalization is GroupNorm. Batch normalization would make the logit of a clip depend on the other clips, and
    spectral normalization would add a state that changes with every forward pass.

    Args:
        config: sizes.
        clips: format of the clips.

    Raises:
        ValueError: the clips are too small for the number of layers.
    """

    def __init__(self, config: PatchDiscriminatorConfig, clips: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        if clips.size >> config.layers == 0:
            raise ValueError(
                f"discriminator.layers {config.layers}, expected at most {clips.size.bit_length() - 1} for clips of"
                f" {clips.size} pixels, because each layer halves them"
            )
        inputs = (clips.channels, *config.widths)
        self.convolutions = nn.ModuleList(
            nn.Conv3d(before, width, (3, 4, 4), (stride, 2, 2), padding=1)
            for before, width, stride in zip(inputs, config.widths, config.temporal_strides, strict=False)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, width) for width in config.widths[1:])
        self.head = nn.Conv3d(config.widths[-1], 1, 3, padding=1)

    def forward(self, clips: Tensor) -> Tensor:
        """Compute the logits of clips; larger is more real.

        Args:
            clips: `[B, C, T, S, S]` in [0, 1].

        Returns:
            `[B, N]` float32, N = ceil(T / 2^temporal_layers) * floor(S / 2^layers)^2, in the order (t, h, w).
        """
        x = clips.to(self.head.weight.dtype) * 2 - 1
        if clips.device.type != "cpu":
            return self._logits(x)
        # On a CPU with AVX2 (AMD EPYC, one thread, 4 clips of 16 x 128 x 128), the forward pass takes 0.13 s in float32
        # and 18 s in bfloat16; channels_last_3d makes forward and backward passes 17 % faster.
        with torch.autocast("cpu", enabled=False):
            return self._logits(x.contiguous(memory_format=torch.channels_last_3d))

    def _logits(self, x: Tensor) -> Tensor:
        for index, convolution in enumerate(self.convolutions):
            x = convolution(x)  # [B, width, t, h, w]
            if index:
                x = self.norms[index - 1](x)
            x = F.leaky_relu(x, _SLOPE, inplace=True)  # the gradient needs the output only
        return self.head(x).flatten(1).float()


def build_discriminator(
    config: DiscriminatorConfig, clips: TokenizerConfig
) -> TransformerDiscriminator | PatchDiscriminator:
    """Build a discriminator of the configured kind with random weights.

    Raises:
        ValueError: the discriminator does not fit the format of the clips.
    """
    if isinstance(config, PatchDiscriminatorConfig):
        return PatchDiscriminator(config, clips)
    return TransformerDiscriminator(config, clips)
