"""Transformer of the tokenizer, the scorer and the discriminator, with block-causal attention given by a plan.

Rows are patches and latents. They are either batched (`B` clips with the same plan) or packed (`B` = 1, clips of any
lengths one after the other). With a `BlockKVCache` the keys include rows of earlier calls, which is all that streaming
needs.

Legend: `B` batch, `N` rows of a call, `Q` query rows, `M` rows of all calls so far, `H` heads, `D` width, `d` = D / H.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adaptok.config.transformer import StackConfig
from adaptok.models.feed_forward import build_mlp
from adaptok.models.kv_cache import BlockKVCache
from adaptok.models.rotary import KeyTransform, QueryTransform, rotations
from adaptok.ops.block_causal_attention import Segment, block_causal_attention, gather_runs
from adaptok.ops.chunked_residual import add_residual_
from adaptok.ops.ragged_attention import RaggedRows, ragged_rows

NORM_EPS = 1e-5


@dataclass(frozen=True)
class Plan:
    """Rows that attend to each other in every layer of a stack.

    segments: cover the rows of a call in order.
    outputs: rows that leave the last layer; all if None.
    output_segments: segments that cover these rows alone, so that the last layer computes nothing for the others.
    """

    segments: tuple[Segment, ...]
    outputs: tuple[slice, ...] | None = None
    output_segments: tuple[Segment, ...] = ()


@dataclass(frozen=True)
class LayerPlan:
    """Attention of one layer.

    segments: cover the query rows in order.
    queries: rows of the input that are queries and leave the layer; all if None.
    rotation, query_rotation: float32 `[2, N, 1, d / 2]` and `[2, Q, 1, d / 2]`, rotations of keys and queries.
    ragged: rows of the segments, where a GPU computes them in one kernel.
    """

    segments: tuple[Segment, ...]
    queries: tuple[slice, ...] | None = None
    rotation: Tensor | None = None
    query_rotation: Tensor | None = None
    ragged: RaggedRows | None = None

    def select_queries(self, x: Tensor) -> Tensor:
        """`[B, N, D]` to `[B, Q, D]`."""
        return x if self.queries is None else gather_runs(x, self.queries, 1)


class Attention(nn.Module):
    """Multi-head self-attention. Keys enter the cache normalized and rotated."""

    def __init__(self, config: StackConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.proj = nn.Linear(config.width, config.width)
        self.q_norm = self.k_norm = None
        if config.qk_norm or config.rope:
            size = config.width // config.heads
            self.q_norm = QueryTransform(size, config.qk_norm, NORM_EPS)
            self.k_norm = KeyTransform(size, config.qk_norm, NORM_EPS)

    def forward(self, x: Tensor, plan: LayerPlan, cache: BlockKVCache | None) -> Tensor:
        """`[B, N, D]` to `[B, Q, D]`."""
        width = x.shape[-1]
        q_weight, kv_weight = self.qkv.weight.split((width, 2 * width))
        q = F.linear(plan.select_queries(x), q_weight).unflatten(-1, (self.heads, -1))  # [B, Q, H, d]
        kv = F.linear(x, kv_weight).unflatten(-1, (2, self.heads, -1))  # [B, N, 2, H, d]
        if self.q_norm is not None and self.k_norm is not None:
            q, kv = self.q_norm(q, plan.query_rotation), self.k_norm(kv, plan.rotation)
        if cache is not None:
            kv = cache.append(self.layer, kv)  # [B, M, 2, H, d]
        return self.proj(block_causal_attention(q, kv, plan.segments, plan.ragged).flatten(2))


def build_norm(config: StackConfig, eps: float = NORM_EPS) -> nn.LayerNorm | nn.RMSNorm:
    """Build the configured normalization of rows `[..., D]`."""
    return {"layer": nn.LayerNorm, "rms": nn.RMSNorm}[config.norm](config.width, eps=eps)


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: StackConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = build_norm(config)
        self.attn = Attention(config, layer)
        self.norm2 = build_norm(config)
        self.mlp = build_mlp(config)

    def forward(self, x: Tensor, plan: LayerPlan, cache: BlockKVCache | None) -> Tensor:
        """`[B, N, D]` to `[B, Q, D]`."""
        attended = self.attn(self.norm1(x), plan, cache)
        x = plan.select_queries(x)
        if torch.is_grad_enabled() or x.device.type != "cpu":
            x = x + attended
            return x + self.mlp(self.norm2(x))
        return add_residual_(attended.add_(x), lambda rows: self.mlp(self.norm2(rows)))


class TransformerStack(nn.Module):
    """Transformer blocks, one after the other."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(TransformerBlock(config, layer) for layer in range(config.depth))
        self.checkpointing = False
        """Whether to keep only the input of each block for the gradient and compute the rest again."""

    def forward(
        self, x: Tensor, plan: Plan, cache: BlockKVCache | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """`[B, N, D]` to the rows in `plan.outputs`. The caller sets the new length of the cache.

        Args:
            positions: int64 `[N, 4]`, coordinates of the rows (see `rotary`). Required with the option `rope`.
        """
        for block, layer_plan in zip(self.blocks, self._layer_plans(plan, x, positions), strict=True):
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, layer_plan, cache, use_reentrant=False)
            else:
                x = block(x, layer_plan, cache)
        return x

    def _layer_plans(self, plan: Plan, x: Tensor, positions: Tensor | None) -> list[LayerPlan]:
        size = self.config.width // self.config.heads
        rotation = query_rotation = None
        if self.config.rope:
            assert positions is not None
            rotation = query_rotation = rotations(positions, size)
        inner = LayerPlan(plan.segments, None, rotation, rotation, ragged_rows(plan.segments, len(x), x.device, size))
        if plan.outputs is None:
            return [inner] * self.config.depth
        if rotation is not None:
            query_rotation = gather_runs(rotation, plan.outputs, 1).contiguous()
        ragged = ragged_rows(plan.output_segments, len(x), x.device, size)
        last = LayerPlan(plan.output_segments, plan.outputs, rotation, query_rotation, ragged)
        return [inner] * (self.config.depth - 1) + [last]


def initialize_linears(module: nn.Module) -> None:
    """Initialize every linear layer below a module with Xavier-uniform weights and zero biases."""
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.xavier_uniform_(child.weight)
            if child.bias is not None:
                nn.init.zeros_(child.bias)
