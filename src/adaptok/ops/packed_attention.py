"""Gradients of packed rows on a CPU: causal attention within clips, and SwiGLU, each with one buffer for its gradient.

Legend: `N` rows of all clips, `H` heads, `d` numbers of a head, `n` rows of a clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS = 192
"""Query rows of a tile."""


class PackedCausalAttention(torch.autograd.Function):
    """softmax(q kᵀ / sqrt(d)) v within clips of these lengths, over rows that see themselves and those before.

    The fused kernel computes bfloat16 at the speed of float32 on a CPU, and autograd makes a full buffer of zeros for
    each clip. Here products on tiles of rows leave out what these do not see, weights are made again for the gradient,
    and it is written into one buffer.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, lengths: Sequence[int]) -> Tensor:
        """`qkv [N, 3, H, d]` to `[N, H, d]`."""
        n, _, heads, d = qkv.shape
        lanes = qkv.permute(1, 2, 0, 3).contiguous()  # [3, H, N, d]
        out = torch.empty(heads, n, d, dtype=qkv.dtype)
        for start, stop in _runs(lengths):
            q, k, v = lanes[:, :, start:stop]
            for rows in _tiles(stop - start):
                torch.bmm(_weights(q, k, rows), v[:, : rows.stop], out=out[:, start:stop][:, rows])
        ctx.save_for_backward(lanes)
        ctx.lengths = lengths
        return out.transpose(0, 1).contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (lanes,) = ctx.saved_tensors
        scale = lanes.shape[-1] ** -0.5
        grad = grads[0].transpose(0, 1).contiguous()
        out = torch.empty_like(lanes)
        for start, stop in _runs(ctx.lengths):
            q, k, v = lanes[:, :, start:stop]
            dq, dk, dv = out[:, :, start:stop]
            # from the last rows to the first: that tile sees every key, so it need not be added to anything
            for place, rows in enumerate(reversed(_tiles(stop - start))):
                seen, more = slice(0, rows.stop), int(place > 0)
                tile, weights = grad[:, start:stop][:, rows], _weights(q, k, rows)
                slope = torch.bmm(tile, v[:, seen].transpose(1, 2))
                torch.ops.aten._softmax_backward_data.out(slope, weights, -1, slope.dtype, grad_input=slope)
                torch.baddbmm(dq[:, rows], slope, k[:, seen], beta=0, alpha=scale, out=dq[:, rows])
                slopes, values = slope.transpose(1, 2), weights.transpose(1, 2)
                torch.baddbmm(dk[:, seen], slopes, q[:, rows], beta=more, alpha=scale, out=dk[:, seen])
                torch.baddbmm(dv[:, seen], values, tile, beta=more, out=dv[:, seen])
        return out.permute(2, 0, 1, 3), None


def _runs(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """First row of each clip, and the one after its last."""
    runs, start = [], 0
    for length in lengths:
        runs.append((start, start + length))
        start += length
    return runs


def _tiles(rows: int) -> list[slice]:
    return [slice(start, min(start + _ROWS, rows)) for start in range(0, rows, _ROWS)]


def _weights(q: Tensor, k: Tensor, rows: slice) -> Tensor:
    """Attention `[H, rows, rows.stop]` of some rows of `q [H, n, d]` over those that they see."""
    hidden = torch.full((rows.stop - rows.start,) * 2, -torch.inf, dtype=q.dtype).triu_(1)
    weights = torch.bmm(q[:, rows], k[:, : rows.stop].transpose(1, 2)).mul_(q.shape[-1] ** -0.5)
    weights[:, :, rows.start :] += hidden
    torch.softmax(weights, -1, out=weights)
    return weights


class SwiGlu(torch.autograd.Function):
    """silu(gate) * up; of `[N, 2 h]`, gate before up, nothing else is kept, and its gradient is one buffer."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        """`[N, 2 h]` to `[N, h]`."""
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        out = torch.empty_like(gate_up)
        (gate, up), (of_gate, of_up) = gate_up.chunk(2, -1), out.chunk(2, -1)
        torch.mul(grads[0], F.silu(gate), out=of_up)
        torch.ops.aten.silu_backward.grad_input(grads[0] * up, gate, grad_input=of_gate)
        return out
