"""Random lengths of blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from adaptok.config.lengths import (
    FixedLengths,
    LengthDistribution,
    MixtureLengths,
    NormalLengths,
    UniformLengths,
)


def draw_lengths(
    distribution: LengthDistribution, clips: int, blocks: int, generator: torch.Generator
) -> list[list[int]]:
    """Draw a length for each block of each clip. The first block of a clip keeps at least one latent.

    Args:
        distribution: distribution of the lengths. A component of a mixture is drawn once for each clip.
        clips: number of clips.
        blocks: number of blocks of a clip.
        generator: random numbers on the CPU.
    """
    if isinstance(distribution, MixtureLengths):
        weights = torch.tensor(distribution.weights)
        chosen = torch.multinomial(weights, clips, replacement=True, generator=generator)
        rows = [_draw_simple(distribution.components[int(index)], 1, blocks, generator) for index in chosen]
        lengths = torch.cat(rows)
    else:
        lengths = _draw_simple(distribution, clips, blocks, generator)
    lengths[:, 0].clamp_(min=1)
    return lengths.tolist()


def _draw_simple(
    distribution: UniformLengths | NormalLengths | FixedLengths, clips: int, blocks: int, generator: torch.Generator
) -> Tensor:
    if isinstance(distribution, UniformLengths):
        return torch.randint(distribution.min, distribution.max + 1, (clips, blocks), generator=generator)
    if isinstance(distribution, NormalLengths):
        normal = torch.randn(clips, blocks, generator=generator) * distribution.std + distribution.mean
        return normal.round().long().clamp(distribution.min, distribution.max)
    return torch.full((clips, blocks), distribution.length)
