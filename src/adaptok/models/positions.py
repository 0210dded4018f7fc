"""Fixed sine-cosine embeddings (Vaswani et al. 2017; the layout is that of the official checkpoints)."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_1d(positions: Tensor, width: int) -> Tensor:
    """`[N]` positions to `[N, width]`: `[sin(m w_k), cos(m w_k)]`, w_k = 10000^(-k / (width / 2))."""
    if width % 2:
        raise ValueError(f"width {width} is odd, expected an even number of dimensions")
    rates = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions.double()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1).float()


def sincos_3d(blocks: int, grid: int, width: int) -> Tensor:
    """`[blocks * grid * grid, width]` in t, h, w order: half of the dimensions from the column, half from the row,
    plus the 1D embedding of the block index."""
    block, row, column = torch.meshgrid(torch.arange(blocks), torch.arange(grid), torch.arange(grid), indexing="ij")
    flat = torch.cat([sincos_1d(column.flatten(), width // 2), sincos_1d(row.flatten(), width // 2)], 1)
    return flat + sincos_1d(block.flatten(), width)
