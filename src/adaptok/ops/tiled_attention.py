"""Attention on a CPU in bfloat16, by matrix products on tiles.

Why: on a CPU, `F.scaled_dot_product_attention` computes bfloat16 at the speed of float32. Matrix products on tiles
whose scores stay in the last-level cache use the processor's bfloat16 instructions.

Tiles are used only where oneDNN reports support for bfloat16; their gain there has not been measured again. On one
thread of an AMD EPYC that has AVX2 only, they are slower than torch's kernel, which is used there: 12 heads of 768 rows
of 64 dimensions take 668 ms forward and 1,004 ms backward by tiles, and 31 ms and 575 ms by torch's kernel (processor
time, torch 2.13).

Legend: `B` batch, `H` heads, `N` queries, `M` keys, `d` dimensions of a head.
"""

from __future__ import annotations

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

_TILE_QUERIES = 256
_TILE_SCORES = 2**21
"""Number of attention scores held at once. In half precision they should stay in the last-level cache."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax(q kᵀ / sqrt(d)) v without recording a gradient, by tiles where they are faster.

    Args:
        q: `[B, H, N, d]`.
        k, v: `[B, H, M, d]`.
    """
    return tiled_attention(q, k, v) if uses_tiles(q) else F.scaled_dot_product_attention(q, k, v)


def attention_with_logsumexp(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor | None]:
    """Compute `attention`, and the log-sum-exp of its scores, with which the gradient needs no second forward pass.

    Returns:
        The result, and the log-sum-exp, float32 `[B, H, N]`, or None where the kernel does not return it.
    """
    if q.device.type != "cpu" or uses_tiles(q) or not k.shape[2]:
        return attention(q, k, v), None
    out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    return out, logsumexp


def attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor | None = None, logsumexp: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of `attention` with respect to q, k and v from the gradient of its result.

    Args:
        grad: gradient of the result, `[B, H, N, d]`.
        q, k, v: arguments of `attention`.
        out, logsumexp: what `attention_with_logsumexp` returned. Without them, the attention is computed again.
    """
    if uses_tiles(q):
        return tiled_attention_backward(grad, q, k, v)
    if logsumexp is not None and k.shape[2]:
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            grad, q, k, v, out, logsumexp, 0.0, False
        )
        return dq, dk, dv
    with torch.enable_grad():
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v)
    dq, dk, dv = torch.autograd.grad(out, (q, k, v), grad)
    return dq, dk, dv


def uses_tiles(q: Tensor) -> bool:
    """Return whether queries of this device and type are attended in tiles, on this processor."""
    return q.device.type == "cpu" and q.dtype == torch.bfloat16 and _supports_bfloat16()


@cache
def _supports_bfloat16() -> bool:
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (RuntimeError, AttributeError):  # a build without oneDNN
        return False


def _tile_size(q: Tensor, keys: int) -> tuple[int, int]:
    """Number of lanes (of B * H) and of query rows in a tile."""
    rows = min(q.shape[2], _TILE_QUERIES)
    return max(1, min(q.shape[0] * q.shape[1], _TILE_SCORES // (rows * keys))), rows


def _view(buffer: Tensor, *shape: int) -> Tensor:
    """View the start of a flat buffer as a contiguous tensor: some kernels ignore the strides of their output."""
    return buffer[: math.prod(shape)].view(shape)


def tiled_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute `attention` by tiles."""
    b, h, n, d = q.shape
    lanes, rows = _tile_size(q, k.shape[2])
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    out = q.new_empty(b * h, n, d)
    buffer = q.new_empty(lanes * rows * k.shape[1])
    for lane in range(0, b * h, lanes):
        own = slice(lane, lane + lanes)
        keys, values = k[own].contiguous().transpose(1, 2), v[own]  # products with distant rows are slower
        for row in range(0, n, rows):
            tile = q[own, row : row + rows]
            weights = _view(buffer, *tile.shape[:2], k.shape[1])
            torch.baddbmm(weights, tile, keys, beta=0, alpha=d**-0.5, out=weights)
            torch.softmax(weights, -1, out=weights)
            torch.bmm(weights, values, out=out[own, row : row + rows])
    return out.view(b, h, n, d)


def tiled_attention_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `attention_backward` by tiles."""
    b, h, n, d = q.shape
    m, scale = k.shape[2], d**-0.5
    lanes, rows = _tile_size(q, m)
    q, k, v, grad = (x.flatten(0, 1) for x in (q, k, v, grad))
    dq, dk, dv = q.new_empty(b * h, n, d), q.new_empty(b * h, m, d), q.new_empty(b * h, m, d)
    buffers = q.new_empty(lanes * rows * m), q.new_empty(lanes * rows * m)
    for lane in range(0, b * h, lanes):
        own = slice(lane, lane + lanes)
        keys, values = k[own].contiguous(), v[own].contiguous().transpose(1, 2)
        keys_t = keys.transpose(1, 2)
        for row in range(0, n, rows):
            at, add = slice(row, row + rows), int(row > 0)  # the first tile of rows overwrites dk and dv
            tile, grad_tile = q[own, at], grad[own, at]
            weights, slope = (_view(buffer, *tile.shape[:2], m) for buffer in buffers)
            torch.baddbmm(weights, tile, keys_t, beta=0, alpha=scale, out=weights)
            torch.softmax(weights, -1, out=weights)
            torch.bmm(grad_tile, values, out=slope)
            torch.ops.aten._softmax_backward_data.out(slope, weights, -1, q.dtype, grad_input=slope)
            torch.baddbmm(dv[own], weights.transpose(1, 2), grad_tile, beta=add, out=dv[own])
            torch.baddbmm(dk[own], slope.transpose(1, 2), tile, beta=add, alpha=scale, out=dk[own])
            torch.baddbmm(dq[own, at], slope, keys, beta=0, alpha=scale, out=dq[own, at])
    return dq.view(b, h, n, d), dk.view(b, h, m, d), dv.view(b, h, m, d)
