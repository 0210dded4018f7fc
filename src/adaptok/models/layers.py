"""Transformer blocks over packed rows, with attention given by a plan instead of a mask.

Legend: `B` batch, `N` rows (tokens) of a call, `M` rows of all calls so far, `H` heads, `D` width, `d` = D / H.

Block-causal attention needs no `N x N` mask: each run of query rows sees a few runs of key rows, and a `Plan` lists
them. Rows are either batched (`B` clips with the same plan) or packed (`B` = 1, clips of any lengths one after the
other). With a `KeyValueCache` the key runs may point at rows of earlier calls, which is all that streaming needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MLP_RATIO = 4
NORM_EPS = 1e-5
_CPU_CHUNK_ROWS = 2048
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
    """softmax(q kᵀ / sqrt(d)) v for `q [B, H, N, d]`, `k` and `v [B, H, M, d]`."""
    half_on_cpu = q.device.type == "cpu" and q.dtype == torch.bfloat16
    if half_on_cpu and not (torch.is_grad_enabled() and q.requires_grad):
        return _attend_tiled(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def _attend_tiled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`attend` in tiles whose scores stay in the cache.

    The fused CPU kernel computes bfloat16 at the speed of float32; plain matrix products on cache-sized tiles run
    two to three times faster where the processor has bfloat16 instructions, and no slower elsewhere.
    """
    b, h, n, d = q.shape
    m = k.shape[2]
    q, k, v = (x.reshape(b * h, x.shape[2], d) for x in (q, k, v))
    rows = min(n, 256)
    lanes = max(1, min(b * h, _CPU_TILE_SCORES // (rows * m)))
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    scores = q.new_empty(lanes, rows, m)
    for lane in range(0, b * h, lanes):
        keys, values = k[lane : lane + lanes].transpose(1, 2), v[lane : lane + lanes]
        for row in range(0, n, rows):
            tile = q[lane : lane + lanes, row : row + rows]
            s = scores[: tile.shape[0], : tile.shape[1]]
            torch.baddbmm(s, tile, keys, beta=0, alpha=d**-0.5, out=s)
            torch.softmax(s, -1, out=s)
            torch.bmm(s, values, out=out[lane : lane + lanes, row : row + rows])
    return out.view(b, h, n, d)


class Attention(nn.Module):
    """Multi-head self-attention by a plan."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, plan: Plan, layer: int, cache: KeyValueCache | None, last: bool) -> Tensor:
        b, n, width = x.shape
        if last and plan.outputs is not None:
            segments = plan.final_segments
            weights = self.qkv.weight.split((width, 2 * width))
            q = F.linear(join(x, plan.outputs, 1), weights[0]).view(b, -1, self.heads, width // self.heads)
            kv = F.linear(x, weights[1]).view(b, n, 2, self.heads, -1)
        else:
            segments = plan.segments
            qkv = self.qkv(x).view(b, n, 3, self.heads, -1)
            q, kv = qkv[:, :, 0], qkv[:, :, 1:]
        if cache is not None:
            kv = cache.append(layer, kv)
        k, v = kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)  # [B, H, M, d]
        q = q.transpose(1, 2)
        parts = [attend(q[:, :, s.queries], join(k, s.keys, 2), join(v, s.keys, 2)) for s in segments]
        if not parts:  # nothing leaves this layer, only its keys and values were wanted
            return x[:, :0]
        out = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
        return self.proj(out.transpose(1, 2).reshape(b, -1, width))


class Mlp(nn.Module):
    """Two linears around an exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor, plan: Plan, layer: int, cache: KeyValueCache | None, last: bool) -> Tensor:
        attended = self.attn(self.norm1(x), plan, layer, cache, last)
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
    """Blocks one after the other.

    Args:
        width: D.
        depth: number of blocks.
        heads: H, divides `width`.
    """

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))

    def forward(self, x: Tensor, plan: Plan, cache: KeyValueCache | None = None) -> Tensor:
        """`x [B, N, D]` to `[B, rows in plan.outputs (else N), D]`. The caller moves the cache on with `keep`."""
        for layer, block in enumerate(self.blocks):
            x = block(x, plan, layer, cache, layer == len(self.blocks) - 1)
        return x


def initialize_linears(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear below `module`."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
