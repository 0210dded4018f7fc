"""Block-causal attention without a mask.

Why: nothing of a block attends to a later block, so the rows fall into segments that each see a few runs of keys. One
product per segment computes only the pairs that exist, where a dense mask computes all `N x M`. The gradient is written
into one buffer; autograd would allocate a full buffer for every slice. Keys and values are copied into a buffer in the
order of heads, which most segments share: torch's kernel takes a quarter less time there than on rows that are far
apart, and segments that see several runs need not copy all of their keys.

Rows are either batched (`B` clips with the same segments) or packed (`B` = 1, clips of any lengths one after the
other).

Measured in processor time on one thread of an AMD EPYC with AVX2 (no bfloat16 instructions), torch 2.13, float32: the
encoder's attention over a clip (3,072 rows, 12 heads of 64) takes 333 ms forward, and the dense mask 704 ms, without
the shared buffer. On one thread of an Intel Xeon with AVX-512, 256 queries of 12 heads take 12.8 ms on 1,280 keys in
the buffer, and without it 16.1 ms and a copy of 3.3 ms.

Legend: `B` batch, `N` query rows, `M` key rows, `H` heads, `d` dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptok.ops.cache_locality import clips_at_once
from adaptok.ops.ragged_attention import RaggedRows, ragged_attention, ragged_kernel
from adaptok.ops.tiled_attention import attention, attention_backward, attention_with_logsumexp, uses_tiles


@dataclass(frozen=True)
class Segment:
    """A run of query rows, and the runs of key rows that it sees."""

    queries: slice
    keys: tuple[slice, ...]


def gather_runs(x: Tensor, runs: Sequence[slice], dim: int) -> Tensor:
    """Concatenate runs of rows along `dim`. A single run, or none, is a view."""
    if not runs:
        return x.narrow(dim, 0, 0)
    pieces = [x.narrow(dim, run.start, run.stop - run.start) for run in runs]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim)


def block_causal_attention_reference(q: Tensor, kv: Tensor, segments: Sequence[Segment]) -> Tensor:
    """Compute the same with a dense mask `[N, M]`. Arguments are those of `block_causal_attention`."""
    mask = torch.zeros(q.shape[1], kv.shape[1], dtype=torch.bool, device=q.device)
    for segment in segments:
        for run in segment.keys:
            mask[segment.queries, run] = True
    k, v = kv.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q.transpose(1, 2), k, v, attn_mask=mask).transpose(1, 2)


def block_causal_attention(
    q: Tensor, kv: Tensor, segments: Sequence[Segment], ragged: RaggedRows | None = None
) -> Tensor:
    """Attend from each segment's queries to its keys.

    Args:
        q: `[B, N, H, d]`.
        kv: `[B, M, 2, H, d]`, keys and values.
        segments: cover the N rows in order.
        ragged: what `ragged_rows` returns for the segments, which a GPU then computes in one kernel.

    Returns:
        `[B, N, H, d]`.
    """
    if ragged is not None and (kernel := ragged_kernel(q)) is not None:
        return ragged_attention(q, kv, ragged, kernel)
    out: Tensor = _BlockCausalAttention.apply(q, kv, segments)
    return out


class _BlockCausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor, segments: Sequence[Segment]) -> Tensor:
        out, logsumexp = torch.empty_like(q), None
        recorded = any(ctx.needs_input_grad)
        for clips in clips_at_once(q):
            queries, outputs = _by_head(q[clips]), out[clips].transpose(1, 2)
            for segment, keys, values in _segment_keys(kv[clips], segments):
                rows = segment.queries
                if not recorded:
                    outputs[:, :, rows] = attention(queries[:, :, rows], keys, values)
                    continue
                outputs[:, :, rows], of_rows = attention_with_logsumexp(queries[:, :, rows], keys, values)
                if of_rows is not None:
                    if logsumexp is None:
                        logsumexp = of_rows.new_zeros(q.shape[0], q.shape[2], q.shape[1])
                    logsumexp[clips, :, rows] = of_rows
        ctx.save_for_backward(q, kv, *(() if logsumexp is None else (out, logsumexp)))
        ctx.segments = segments
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        q, kv, *results = ctx.saved_tensors
        dq, dkv = torch.empty_like(q), torch.zeros_like(kv)
        for clips in clips_at_once(q):
            queries, grad = _by_head(q[clips]), _by_head(grads[0][clips])
            dq_clips, dkv_clips = dq[clips].transpose(1, 2), dkv[clips].permute(2, 0, 3, 1, 4)
            for segment, keys, values in _segment_keys(kv[clips], ctx.segments):
                rows = segment.queries
                known = (results[0][clips].transpose(1, 2)[:, :, rows], results[1][clips, :, rows]) if results else ()
                dq_clips[:, :, rows], dk, dv = attention_backward(
                    grad[:, :, rows], queries[:, :, rows], keys, values, *known
                )
                start = 0
                for run in segment.keys:
                    stop = start + run.stop - run.start
                    dkv_clips[0, :, :, run] += dk[:, :, start:stop]
                    dkv_clips[1, :, :, run] += dv[:, :, start:stop]
                    start = stop
        return dq, dkv, None


def _by_head(x: Tensor) -> Tensor:
    """`[B, N, H, d]` to `[B, H, N, d]`, contiguous where tiles of it are read."""
    x = x.transpose(1, 2)
    return x.contiguous() if uses_tiles(x) else x


def _segment_keys(kv: Tensor, segments: Sequence[Segment]) -> Iterator[tuple[Segment, Tensor, Tensor]]:
    """Yield segments with their keys and values `[B, H, m, d]`, which are valid until the next segment.

    The keys of all segments are views of one buffer in the order of heads. Segments whose runs begin alike follow each
    other, those that see more of the same run first, so that most keys of a segment are in the buffer already, and only
    the others are copied.
    """
    source = kv.permute(2, 0, 3, 1, 4)  # [2, B, H, M, d]
    shape = list(source.shape)
    shape[3] = max((_rows(segment.keys) for segment in segments), default=0)
    buffer = source.new_empty(shape)
    held: tuple[slice, ...] = ()
    for segment in sorted(segments, key=_copying_order):
        keys, size, row = segment.keys, _rows(segment.keys), 0
        present = _common_rows(held, keys)
        for run in keys:
            stop = row + run.stop - run.start
            if stop > present:
                new = max(row, present)
                buffer[:, :, :, new:stop] = source[:, :, :, run.start + new - row : run.stop]
            row = stop
        if present < size:
            held = keys
        yield segment, buffer[0, :, :, :size], buffer[1, :, :, :size]


def _copying_order(segment: Segment) -> list[tuple[int, int]]:
    return [(run.start, -run.stop) for run in segment.keys]


def _rows(runs: Sequence[slice]) -> int:
    return sum(run.stop - run.start for run in runs)


def _common_rows(runs: Sequence[slice], others: Sequence[slice]) -> int:
    """Number of rows that two sequences of runs begin with."""
    rows = 0
    for run, other in zip(runs, others, strict=False):
        if run.start != other.start:
            break
        rows += min(run.stop, other.stop) - run.start
        if run.stop != other.stop:
            break
    return rows
