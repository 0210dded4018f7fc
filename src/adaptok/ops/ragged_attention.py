"""Block-causal attention of all segments in one kernel, on a CUDA device.

Why: with a call for every segment, a GPU mostly waits for the next call. A batch of 64 clips of different lengths has
512 segments in every layer. In half precision, `F.scaled_dot_product_attention` also prefers cuDNN on a Hopper GPU,
which plans every new shape on the CPU first, and segments of drawn lengths always have new shapes. torch has kernels
for sequences of different lengths, which it uses for nested tensors: queries and keys of all segments lie one after the
other, and offsets tell them apart. Keys that several segments see are copied for each of them.

Measured on an NVIDIA H100 with torch 2.11, bfloat16: decoding 32 clips of the full-size model with varying lengths
takes 44 ms, and with a call for every segment 260 ms. If all clips have the same 8 segments, copies cost more than
calls: 47 ms, and 38 ms with a call for every segment.

Legend: `B` batch, `N` query rows, `M` key rows, `K` key rows of all segments, `S` segments, `H` heads, `d` dimensions
of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from adaptok.ops.block_causal_attention import Segment

Kernel = Literal["flash", "efficient"]
MAX_HEAD_SIZE = 192
"""Larger heads have no gradient on some GPUs."""
MAX_ROWS = 2048
"""Query rows of all clips, divided by the number of segments, from which on a call for every segment is used."""
MAX_KEYS = 2**20
"""Keys of all segments and clips that may be copied at once: in bfloat16, 3 GB for rows of width 768."""


class RaggedRows(NamedTuple):
    """Which rows the segments of a call consist of."""

    keys: Tensor
    """int32 `[K]`, the keys of one segment after the other, the same for all B."""
    query_offsets: Tensor
    """int32 `[B * S + 1]`, where the queries of each segment begin."""
    key_offsets: Tensor
    """int32 `[B * S + 1]`, where its keys begin."""
    max_queries: int
    max_keys: int


def ragged_rows(segments: Sequence[Segment], batch: int, device: torch.device, head_size: int) -> RaggedRows | None:
    """Describe segments for `ragged_attention`, once for all layers.

    Args:
        segments: cover the query rows in order.
        batch: B.
        device: device of the queries.
        head_size: d.

    Returns:
        None where a call per segment is as good, or the kernels do not support it.
    """
    if device.type != "cuda" or torch.version.hip is not None or head_size % 8 or head_size > MAX_HEAD_SIZE:
        return None
    if len(segments) < 2:
        return None
    if batch * segments[-1].queries.stop >= MAX_ROWS * len(segments):
        return None
    runs = [(i, run.start, run.stop - run.start) for i, segment in enumerate(segments) for run in segment.keys]
    owner, starts, sizes = np.array(runs, np.int64).reshape(-1, 3).T
    queries = np.array([segment.queries.stop - segment.queries.start for segment in segments])
    keys = np.bincount(owner, sizes, len(segments)).astype(np.int64)
    if not (queries.all() and keys.all()) or batch * keys.sum() > MAX_KEYS:
        return None
    index = np.repeat(starts - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
    offsets = [np.cumsum([0, *np.tile(counts, batch)]) for counts in (queries, keys)]
    parts = torch.from_numpy(np.concatenate([*offsets, index]).astype(np.int32)).to(device)  # in one copy
    of_queries, of_keys, rows = parts.split([len(offsets[0]), len(offsets[1]), len(index)])
    return RaggedRows(rows, of_queries, of_keys, int(queries.max()), int(keys.max()))


def ragged_kernel(q: Tensor) -> Kernel | None:
    """Return the fastest kernel for queries of this type on this GPU; None if there is none."""
    if q.dtype == torch.float32:
        return "efficient"
    if q.dtype not in (torch.float16, torch.bfloat16):
        return None
    ampere = torch.cuda.get_device_capability(q.device) >= (8, 0)
    if ampere and torch.backends.cuda.is_flash_attention_available():
        return "flash"
    return "efficient" if ampere or q.dtype == torch.float16 else None


def ragged_attention(q: Tensor, kv: Tensor, rows: RaggedRows, kernel: Kernel) -> Tensor:
    """Attend from each segment's queries to its keys.

    Args:
        q: `[B, N, H, d]`.
        kv: `[B, M, 2, H, d]`, keys and values.
        rows: rows of the segments.
        kernel: from `ragged_kernel`.

    Returns:
        `[B, N, H, d]`.
    """
    out: Tensor = _RaggedAttention.apply(q, kv, rows, kernel)
    return out


class _RaggedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor, rows: RaggedRows, kernel: Kernel) -> Tensor:
        keys, values = _gather(kv, rows)
        queries, recorded = q.flatten(0, 1), any(ctx.needs_input_grad)
        if kernel == "flash":
            out, *saved, _ = torch.ops.aten._flash_attention_forward(
                queries, keys, values, *rows[1:], 0.0, False, False
            )
        else:
            result, *saved, _, _ = torch.ops.aten._efficient_attention_forward(
                queries[None], keys[None], values[None], None, *rows[1:], 0.0, 0, recorded
            )
            out = result[0]
        if recorded:
            ctx.save_for_backward(q, kv, out, *saved)
            ctx.rows, ctx.kernel = rows, kernel
        return out.view(q.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        q, kv, out, logsumexp, seed, offset = ctx.saved_tensors
        rows: RaggedRows = ctx.rows
        queries, (keys, values), grad = q.flatten(0, 1), _gather(kv, rows), grads[0].contiguous().flatten(0, 1)
        if ctx.kernel == "flash":
            dq, dk, dv = torch.ops.aten._flash_attention_backward(
                grad, queries, keys, values, out, logsumexp, *rows[1:], 0.0, False, seed, offset
            )
        else:
            one = (x[None] for x in (grad, queries, keys, values))
            dq, dk, dv, _ = torch.ops.aten._efficient_attention_backward(
                *one, None, out[None], *rows[1:], logsumexp, 0.0, seed, offset, 0, False
            )
            dk, dv = dk[0], dv[0]
        dkv = torch.zeros_like(kv, dtype=torch.float32)
        for i, gathered in enumerate((dk, dv)):
            dkv[:, :, i].index_add_(1, rows.keys, gathered.unflatten(0, (len(kv), -1)).float())
        return dq.view(q.shape), dkv.to(kv.dtype), None, None


def _gather(kv: Tensor, rows: RaggedRows) -> tuple[Tensor, Tensor]:
    """Keys and values of all segments, `[B * K, H, d]`."""
    keys, values = kv.index_select(1, rows.keys).flatten(0, 1).unbind(1)
    return keys, values
