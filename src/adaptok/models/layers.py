"""Transformer blocks over packed rows, with attention given by a plan instead of a mask.

Legend: `B` batch, `N` rows (tokens) of a call, `M` rows of all calls so far, `H` heads, `D` width, `d` = D / H.

Block-causal attention needs no `N x N` mask: each run of query rows sees a few runs of key rows, and a `Plan` lists
them. Rows are either batched (`B` clips with the same plan) or packed (`B` = 1, clips of any lengths one after the
other). With a `KeyValueCache` the key runs may point at rows of earlier calls, which is all that streaming needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adaptok.config.model import StackConfig
from adaptok.models.feed_forward import build_mlp
from adaptok.models.rotary import KeyTransform, QueryTransform, rotations

NORM_EPS = 1e-5
_CPU_CHUNK_ROWS = 2048
_CAUSAL_ROWS = 256
_CPU_TILE_SCORES = 2**21
"""Attention scores held at once on a CPU in half precision: they should stay in the last-level cache."""


@dataclass(frozen=True)
class Segment:
    """Query rows, and the runs of key rows that they see."""

    queries: slice
    keys: tuple[slice, ...]

    @property
    def pairs(self) -> int:
        """Query-key pairs of the segment."""
        return (self.queries.stop - self.queries.start) * sum(run.stop - run.start for run in self.keys)


@dataclass(frozen=True)
class Plan:
    """Who sees whom.

    `segments` cover the rows of a call in order. Only the rows in `outputs` leave the last layer; `final_segments`
    are the segments over those rows alone, so that the last layer does no work for the others.
    """

    segments: tuple[Segment, ...]
    outputs: tuple[slice, ...] | None = None
    final_segments: tuple[Segment, ...] = field(default=())


def join(x: Tensor, runs: Sequence[slice], dim: int) -> Tensor:
    """Rows of `runs` along `dim`, one after the other; a view where there is one run, or none."""
    if not runs:
        return x.narrow(dim, 0, 0)
    parts = [x.narrow(dim, run.start, run.stop - run.start) for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


class KeyValueCache:
    """Keys and values of earlier calls, per layer, in buffers that are allocated once.

    Args:
        layers: depth of the stack.
        capacity: rows that may ever be held.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self.capacity = capacity
        self.rows = 0
        self._buffers: list[Tensor | None] = [None] * layers

    def append(self, layer: int, kv: Tensor) -> Tensor:
        """Add rows `[B, N, 2, H, d]` of one layer and return all rows so far `[B, rows + N, 2, H, d]`."""
        stop = self.rows + kv.shape[1]
        assert stop <= self.capacity, f"{stop} rows do not fit a cache of {self.capacity}"
        buffer = self._buffers[layer]
        if buffer is None:
            buffer = kv.new_empty(kv.shape[0], self.capacity, *kv.shape[2:])
            self._buffers[layer] = buffer
        buffer[:, self.rows : stop] = kv
        return buffer[:, :stop]

    def keep(self, rows: int) -> None:
        """Count the first `rows` rows as held, once all layers have appended theirs; 0 empties the cache."""
        assert 0 <= rows <= self.capacity
        self.rows = rows


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / sqrt(d)) v for `q [B, H, N, d]`, `k` and `v [B, H, M, d]`, without a gradient."""
    if _tiled(q):
        return _attend_tiled(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def attend_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `attend` with respect to q, k and v, from that of its result."""
    if _tiled(q):
        return _attend_tiled_backward(grad, q, k, v)
    with torch.enable_grad():
        q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
        again = F.scaled_dot_product_attention(q, k, v)
    dq, dk, dv = torch.autograd.grad(again, (q, k, v), grad)
    return dq, dk, dv


def _tiled(q: Tensor) -> bool:
    """Where plain products on tiles beat the fused kernel.

    On a CPU that kernel computes bfloat16 at the speed of float32; plain matrix products on tiles that stay in the
    cache run two to three times faster where the processor has bfloat16 instructions, and no slower elsewhere.
    """
    return q.device.type == "cpu" and q.dtype == torch.bfloat16


def _tiles(q: Tensor, keys: int) -> tuple[int, int]:
    """Lanes (of B * H) and query rows whose scores are held at once."""
    rows = min(q.shape[2], 256)
    return max(1, min(q.shape[0] * q.shape[1], _CPU_TILE_SCORES // (rows * keys))), rows


def _part(buffer: Tensor, *shape: int) -> Tensor:
    """The first numbers of a flat buffer in this shape, without gaps: not every operation minds the strides of its
    result."""
    return buffer[: math.prod(shape)].view(shape)


def _attend_tiled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    b, h, n, d = q.shape
    lanes, rows = _tiles(q, k.shape[2])
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    out = q.new_empty(b * h, n, d)
    buffer = q.new_empty(lanes * rows * k.shape[1])
    for lane in range(0, b * h, lanes):
        own = slice(lane, lane + lanes)
        keys, values = k[own].contiguous().transpose(1, 2), v[own]  # products with rows far apart are a fifth slower
        for row in range(0, n, rows):
            tile = q[own, row : row + rows]
            s = _part(buffer, *tile.shape[:2], k.shape[1])
            torch.baddbmm(s, tile, keys, beta=0, alpha=d**-0.5, out=s)
            torch.softmax(s, -1, out=s)
            torch.bmm(s, values, out=out[own, row : row + rows])
    return out.view(b, h, n, d)


def _attend_tiled_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    b, h, n, d = q.shape
    m, scale = k.shape[2], d**-0.5
    lanes, rows = _tiles(q, m)
    q, k, v, grad = (x.flatten(0, 1) for x in (q, k, v, grad))
    dq, dk, dv = q.new_empty(b * h, n, d), q.new_empty(b * h, m, d), q.new_empty(b * h, m, d)
    buffers = q.new_empty(lanes * rows * m), q.new_empty(lanes * rows * m)
    for lane in range(0, b * h, lanes):
        own = slice(lane, lane + lanes)
        keys, values = k[own].contiguous(), v[own].contiguous().transpose(1, 2)
        to_keys = keys.transpose(1, 2)
        for row in range(0, n, rows):
            part, more = slice(row, row + rows), int(row > 0)  # the first tile of rows overwrites dk and dv
            tile, slope_of_tile = q[own, part], grad[own, part]
            weights, slope = (_part(buffer, *tile.shape[:2], m) for buffer in buffers)
            torch.baddbmm(weights, tile, to_keys, beta=0, alpha=scale, out=weights)
            torch.softmax(weights, -1, out=weights)
            torch.bmm(slope_of_tile, values, out=slope)
            torch.ops.aten._softmax_backward_data.out(slope, weights, -1, q.dtype, grad_input=slope)
            torch.baddbmm(dv[own], weights.transpose(1, 2), slope_of_tile, beta=more, out=dv[own])
            torch.baddbmm(dk[own], slope.transpose(1, 2), tile, beta=more, alpha=scale, out=dk[own])
            torch.baddbmm(dq[own, part], slope, keys, beta=0, alpha=scale, out=dq[own, part])
    return dq.view(b, h, n, d), dk.view(b, h, m, d), dv.view(b, h, m, d)


class PlannedAttention(torch.autograd.Function):
    """Attention over the segments of a plan, one after the other, into one result.

    The gradient is written into one buffer too, and attention weights are computed again: what autograd would do with
    a slice for every segment costs a full-sized buffer for each.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, kv: Tensor, segments: Sequence[Segment]) -> Tensor:
        """`q [B, N, H, d]` and `kv [B, M, 2, H, d]` to `[B, N, H, d]`; the segments cover the N rows."""
        q, k, v = _by_head(q), _by_head(kv[:, :, 0]), _by_head(kv[:, :, 1])
        out = torch.empty_like(q)
        for segment in segments:
            keys, values = join(k, segment.keys, 2), join(v, segment.keys, 2)
            out[:, :, segment.queries] = attend(q[:, :, segment.queries], keys, values)
        ctx.save_for_backward(q, k, v)
        ctx.segments = segments
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        q, k, v = ctx.saved_tensors
        grad = _by_head(grads[0])
        dq, dkv = torch.empty_like(q), k.new_zeros(2, *k.shape)
        for segment in ctx.segments:
            rows = segment.queries
            keys, values = join(k, segment.keys, 2), join(v, segment.keys, 2)
            dq[:, :, rows], of_keys, of_values = attend_backward(grad[:, :, rows], q[:, :, rows], keys, values)
            start = 0
            for run in segment.keys:
                stop = start + run.stop - run.start
                dkv[0, :, :, run] += of_keys[:, :, start:stop]
                dkv[1, :, :, run] += of_values[:, :, start:stop]
                start = stop
        return dq.transpose(1, 2), dkv.permute(1, 3, 0, 2, 4), None


class CausalAttention(torch.autograd.Function):
    """softmax(q kᵀ / sqrt(d)) v over rows that see themselves and those before, with dropout of the weights.

    For a CPU, where the fused kernel knows no dropout and the plain form holds every weight, and draws every number of
    a mask, one by one: tiles of rows leave out what they do not see, weights and masks are made again for the gradient,
    and four numbers of a mask share one draw.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float, seed: int) -> Tensor:
        """`q`, `k` and `v [B, H, N, d]` to `[B, H, N, d]`. The seed makes the mask."""
        lanes = [x.flatten(0, 1).contiguous() for x in (q, k, v)]
        out = torch.empty_like(lanes[0])
        for rows, weights, dropped in _causal_tiles(lanes[0], lanes[1], dropout, seed):
            if dropped is not None:
                weights.masked_fill_(dropped, 0)
            torch.bmm(weights, lanes[2][:, : rows.stop], out=out[:, rows])
        ctx.save_for_backward(*lanes)
        ctx.dropout, ctx.seed = dropout, seed
        return out.div_(1 - dropout).view(q.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v = ctx.saved_tensors
        shape, scale = grads[0].shape, q.shape[-1] ** -0.5
        grad = grads[0].flatten(0, 1) / (1 - ctx.dropout)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for rows, weights, dropped in _causal_tiles(q, k, ctx.dropout, ctx.seed):
            tile, seen = grad[:, rows], slice(0, rows.stop)
            slope = torch.bmm(tile, v[:, seen].transpose(1, 2))
            if dropped is not None:
                slope.masked_fill_(dropped, 0)
            torch.ops.aten._softmax_backward_data.out(slope, weights, -1, q.dtype, grad_input=slope)
            torch.baddbmm(dq[:, rows], slope, k[:, seen], beta=0, alpha=scale, out=dq[:, rows])
            dk[:, seen].baddbmm_(slope.transpose(1, 2), q[:, rows], alpha=scale)
            if dropped is not None:
                weights.masked_fill_(dropped, 0)
            dv[:, seen].baddbmm_(weights.transpose(1, 2), tile)
        return dq.view(shape), dk.view(shape), dv.view(shape), None, None


def _causal_tiles(q: Tensor, k: Tensor, dropout: float, seed: int) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Tiles of the rows of `q [L, N, d]`: which rows, their weights over those that they see, and what is dropped."""
    _, count, d = q.shape
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.full((_CAUSAL_ROWS, _CAUSAL_ROWS), -torch.inf, dtype=q.dtype).triu_(1)
    for start in range(0, count, _CAUSAL_ROWS):
        rows = slice(start, min(start + _CAUSAL_ROWS, count))
        height = rows.stop - start
        weights = torch.bmm(q[:, rows], k[:, : rows.stop].transpose(1, 2)).mul_(d**-0.5)
        weights[:, :, start:] += hidden[:height, :height]
        torch.softmax(weights, -1, out=weights)
        yield rows, weights, _dropped(weights.shape, dropout, generator) if dropout else None


def _dropped(shape: torch.Size, dropout: float, generator: torch.Generator) -> Tensor:
    """Bool: True with the probability `dropout`, to a part in 65536."""
    numbers = math.prod(shape)
    draws = torch.empty(-(-numbers // 4), dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return (draws.view(torch.int16)[:numbers] < round(dropout * 2**16) - 2**15).view(shape)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Causal attention over `[B, H, N, d]` with dropout, on any device; masks come from torch's own random state."""
    if q.device.type != "cpu" or not dropout:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
    seed = int(torch.randint(2**62, ()))
    out: Tensor = CausalAttention.apply(q, k, v, dropout, seed)
    return out


def _by_head(x: Tensor) -> Tensor:
    """`[B, N, H, d]` to `[B, H, N, d]`, in that order in memory where tiles of it are to be read."""
    x = x.transpose(1, 2)
    return x.contiguous() if _tiled(x) else x


class Attention(nn.Module):
    """Multi-head self-attention by a plan. Keys enter the cache normalized and rotated."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.q_norm = self.k_norm = None
        if config.qk_norm or config.rope:
            size = width // config.heads
            self.q_norm = QueryTransform(size, config.qk_norm, NORM_EPS)
            self.k_norm = KeyTransform(size, config.qk_norm, NORM_EPS)

    def forward(
        self, x: Tensor, plan: Plan, layer: int, cache: KeyValueCache | None, last: bool, rotation: Tensor | None
    ) -> Tensor:
        b, _, width = x.shape
        skip = last and plan.outputs is not None
        asking = join(x, plan.outputs or (), 1) if skip else x
        for_queries, for_keys = self.qkv.weight.split((width, 2 * width))
        q = F.linear(asking, for_queries).unflatten(-1, (self.heads, -1))
        kv = F.linear(x, for_keys).unflatten(-1, (2, self.heads, width // self.heads))
        if self.q_norm is not None and self.k_norm is not None:
            turned = rotation
            if skip and rotation is not None:
                turned = join(rotation, plan.outputs or (), 1).contiguous()
            q, kv = self.q_norm(q, turned), self.k_norm(kv, rotation)
        if cache is not None:
            kv = cache.append(layer, kv)
        out = PlannedAttention.apply(q, kv, plan.final_segments if skip else plan.segments)
        return self.proj(out.reshape(b, -1, width))


def build_norm(config: StackConfig, eps: float = NORM_EPS) -> nn.LayerNorm | nn.RMSNorm:
    """Build the normalization of rows `[..., D]` that the configuration selects."""
    return {"layer": nn.LayerNorm, "rms": nn.RMSNorm}[config.norm](config.width, eps=eps)


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.norm1 = build_norm(config)
        self.attn = Attention(config)
        self.norm2 = build_norm(config)
        self.mlp = build_mlp(config)

    def forward(
        self, x: Tensor, plan: Plan, layer: int, cache: KeyValueCache | None, last: bool, rotation: Tensor | None
    ) -> Tensor:
        attended = self.attn(self.norm1(x), plan, layer, cache, last, rotation)
        if last and plan.outputs is not None:
            x = join(x, plan.outputs, 1)
        if torch.is_grad_enabled() or x.device.type != "cpu":
            x = x + attended
            return x + self.mlp(self.norm2(x))
        return self._finish_in_place(attended.add_(x))

    def _finish_in_place(self, x: Tensor) -> Tensor:
        """The MLP on a CPU without gradients: in chunks of rows whose hidden layer stays in the cache."""
        rows = x.view(-1, x.shape[-1])
        for chunk in rows.split(_CPU_CHUNK_ROWS):
            chunk += self.mlp(self.norm2(chunk))
        return x


class TransformerStack(nn.Module):
    """Blocks one after the other."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.depth))
        self.checkpointing = False
        """Keep only the input of each layer for the gradient, and compute the rest again."""

    def forward(
        self, x: Tensor, plan: Plan, cache: KeyValueCache | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """`x [B, N, D]` to `[B, rows in plan.outputs (else N), D]`. The caller moves the cache on with `keep`.

        Args:
            positions: int64 `[N, 4]` of the rows, see `rotary`; needed and used only with the option `rope`.
        """
        rotation = None
        if self.config.rope:
            assert positions is not None
            rotation = rotations(positions, self.config.width // self.config.heads)
        for layer, block in enumerate(self.blocks):
            last = layer == len(self.blocks) - 1
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, plan, layer, cache, last, rotation, use_reentrant=False)
            else:
                x = block(x, plan, layer, cache, last, rotation)
        return x


def initialize_linears(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear below `module`."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
