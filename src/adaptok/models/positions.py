"""Fixed sine-cosine embeddings of positions (arXiv 1706.03762), in the layout of the official checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_1d(positions: Tensor, width: int) -> Tensor:
    """Embed positions m `[N]` as `[N, width]`: sin(m w_k), then cos(m w_k), with w_k = 10000^(-k / (width / 2)).

    Raises:
        ValueError: the width is odd.
    """
    if width % 2:
        raise ValueError(f"width {width} is odd, expected an even number of dimensions")
    frequencies = 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angles = positions.double()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1).float()


def sincos_3d(blocks: int, grid: int, width: int) -> Tensor:
    """Embed the patches of a clip as `[blocks * grid * grid, width]`, in (t, h, w) order.

    The first half of the dimensions embeds the column and the second half the row. The embedding of the block is added
    to both.
    """
    block, row, column = torch.meshgrid(torch.arange(blocks), torch.arange(grid), torch.arange(grid), indexing="ij")
    flat = torch.cat([sincos_1d(column.flatten(), width // 2), sincos_1d(row.flatten(), width // 2)], 1)
    return flat + sincos_1d(block.flatten(), width)
