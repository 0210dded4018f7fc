"""Rotary positions of patches and latents (arXiv 2104.09864), and normalization of queries and keys.

A row has four coordinates: block, grid row, grid column and latent index. A quarter of the dimensions of each head is
rotated by each coordinate, so that attention scores depend on positions only through the differences of coordinates:

- a patch is at (block, row, column, 0);
- a latent is at (block, 0, 0, index): it has no place in the frame, and patches have no index.

The coordinates that a kind of row lacks are 0, so these dimensions are not rotated: between patches and latents, the
scores there depend on where the patch is in the frame, and on the index of the latent.

Legend: `B` clips, `N` rows, `H` heads, `d` head dimension, `g` blocks, `P` patches and `K` latents of a block.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASES = (100.0, 100.0, 100.0, 10000.0)
"""Base of the frequencies of each coordinate. Grids are short, so 100 (arXiv 2403.13298); a block
may have hundreds of latents, so 10000 as for text."""


def patch_positions(blocks: Tensor, grid: int) -> Tensor:
    """Indices of blocks `[g]` to coordinates int64 `[g, P, 4]` of their patches, for a square grid of this side."""
    side = torch.arange(grid, device=blocks.device)
    coordinates = torch.meshgrid(blocks, side, side, side.new_zeros(1), indexing="ij")
    return torch.stack(coordinates, -1).flatten(1, 3)


def latent_positions(blocks: Tensor, latents: int) -> Tensor:
    """Indices of blocks `[g]` to coordinates int64 `[g, K, 4]` of their latents."""
    index = torch.arange(latents, device=blocks.device)
    zero = index.new_zeros(1)
    return torch.stack(torch.meshgrid(blocks, zero, zero, index, indexing="ij"), -1).flatten(1, 3)


def rotations(positions: Tensor, head_dim: int) -> Tensor:
    """Cosines and sines of the angles of each pair of dimensions, in float32 whatever the model computes in.

    Coordinate m turns its pairs by m b^(-i / n), for i from 0 to n - 1, where n = d / 8 and b is the base.

    Args:
        positions: `[N, 4]` coordinates.
        head_dim: d, a multiple of 8.

    Returns:
        float32 `[2, N, 1, d / 2]`.
    """
    pairs = head_dim // 8
    exponents = torch.arange(pairs, device=positions.device, dtype=torch.float32) / -pairs
    rates = torch.tensor(BASES, device=positions.device)[:, None] ** exponents  # [4, d / 8]
    angles = (positions[:, :, None] * rates).flatten(1)  # [N, d / 2]
    return torch.stack([angles.cos(), angles.sin()])[:, :, None]


class Rotate(torch.autograd.Function):
    """Rotate the pairs (i, i + d / 2) of the last dimension, without the copies that autograd would make."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rotation: Tensor) -> Tensor:
        """`x [B, N, H, d]` and `rotation [2, N, 1, d / 2]` to `[B, N, H, d]`."""
        ctx.save_for_backward(rotation)
        return _rotate(x, rotation[0], rotation[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (rotation,) = ctx.saved_tensors
        return _rotate(grads[0], rotation[0], -rotation[1]), None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class QueryTransform(nn.Module):
    """Normalization of the queries of each head (RMSNorm, arXiv 2010.04245), and their rotation.

    Args:
        head_dim: d.
        norm: normalize, with a learned gain that all heads share.
        eps: added to the mean square.
    """

    def __init__(self, head_dim: int, norm: bool, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(head_dim)) if norm else None

    def forward(self, x: Tensor, rotation: Tensor | None) -> Tensor:
        """`x [B, N, H, d]` to the same shape and type, computed in float32. None does not rotate."""
        y = x.float()
        if self.weight is not None:
            y = F.rms_norm(y, y.shape[-1:], self.weight.float(), self.eps)
        if rotation is not None:
            y = Rotate.apply(y, rotation)
        return y.to(x.dtype)


class KeyTransform(QueryTransform):
    """Normalization and rotation of keys, which are stored beside values.

    Queries and keys have different strides. With a `forward` for each, neither reaches the limit of recompilations,
    which torch.compile counts per function.
    """

    def forward(self, kv: Tensor, rotation: Tensor | None) -> Tensor:
        """Keys and values `[B, N, 2, H, d]` to new keys and the same values."""
        return torch.stack([super().forward(kv[:, :, 0], rotation), kv[:, :, 1]], 2)
