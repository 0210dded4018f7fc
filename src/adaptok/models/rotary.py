"""Rotary positions of patches and latents (arXiv 2104.09864), and normalization of queries and keys.

A row has four coordinates: block, grid row, grid column and latent index. Each coordinate rotates a quarter of the
dimensions of each head, so attention scores depend on positions only through differences of coordinates.

- A patch is at (block, row, column, 0).
- A latent is at (block, 0, 0, index), because it has no position in the frame.

A coordinate of 0 leaves its dimensions unrotated. Between a patch and a latent, these dimensions of the score depend on
the position of the patch in the frame and on the index of the latent.

Legend: `B` clips, `N` rows, `H` heads, `d` head dimension, `g` blocks, `P` patches and `K` latents of a block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASES = (100.0, 100.0, 100.0, 10000.0)
"""Base of the frequencies of each coordinate: 100 for the short axes of a clip (arXiv 2403.13298), and 10000, as for
text, for the index of a latent, of which a block may have hundreds."""


def patch_positions(blocks: Tensor, grid: int) -> Tensor:
    """Compute the coordinates int64 `[g, P, 4]` of the patches in blocks `[g]`.

    Args:
        grid: number of patches along a side.
    """
    side = torch.arange(grid, device=blocks.device)
    coordinates = torch.meshgrid(blocks, side, side, side.new_zeros(1), indexing="ij")
    return torch.stack(coordinates, -1).flatten(1, 3)


def latent_positions(blocks: Tensor, latents: int) -> Tensor:
    """Compute the coordinates int64 `[g, K, 4]` of the latents in blocks `[g]`."""
    index = torch.arange(latents, device=blocks.device)
    zero = index.new_zeros(1)
    return torch.stack(torch.meshgrid(blocks, zero, zero, index, indexing="ij"), -1).flatten(1, 3)


def rotations(positions: Tensor, head_dim: int) -> Tensor:
    """Compute the cosines and sines of the angles of each pair of dimensions, in float32 for every model type.

    Coordinate m rotates its n = d / 8 pairs by the angles m b^(-i / n), i = 0 … n - 1, where b is the base.

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


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the pairs (i, i + d / 2) of the last dimension of `x [B, N, H, d]`; see `rotations`."""
    (first, second), (cos, sin) = x.chunk(2, -1), rotation
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class QueryTransform(nn.Module):
    """Normalization (RMSNorm, arXiv 2010.04245) and rotation of the queries of each head.

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
        """Transform `x [B, N, H, d]` in float32, and return it in its own type.

        Args:
            rotation: float32 `[2, N, 1, d / 2]`; None does not rotate.
        """
        y = x.float()
        if self.weight is not None:
            y = F.rms_norm(y, y.shape[-1:], self.weight.float(), self.eps)
        if rotation is not None:
            y = rotate(y, rotation)
        return y.to(x.dtype)


class KeyTransform(QueryTransform):
    """Normalization and rotation of keys, which are stored beside values.

    Queries and keys have different strides. Each has a `forward` of its own, so neither reaches the recompilation limit
    of torch.compile, which counts per function.
    """

    def forward(self, kv: Tensor, rotation: Tensor | None) -> Tensor:
        """Transform the keys of `kv [B, N, 2, H, d]`, and leave the values."""
        return torch.stack([super().forward(kv[:, :, 0], rotation), kv[:, :, 1]], 2)
