"""Generator: an autoregressive transformer over the ids of a clip.

A clip is a sequence of entries: the kept ids of each block, followed by an end-of-block token. Before it stands the
condition, which is one row for a class, or the ids of the first frames and a separator. The architecture is that of
LLaMA (RMSNorm, SwiGLU, no biases) with learned absolute positions.

Legend: `B` clips, `n` entries of a clip, `P` rows of the condition, `N` rows of packed clips, `V` vocabulary (ids and
the end-of-block token), `D` width, `H` heads, `d` = D / H, `R` clips of a decode step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from adaptok.config.generator import GeneratorConfig
from adaptok.models.digits import DigitEmbedding, DigitHead, DigitTable
from adaptok.models.feed_forward import FeedForward
from adaptok.models.kv_cache import KVCache
from adaptok.ops.prepacked_linear import iter_parameters
from adaptok.ops.varlen_attention import varlen_attention

NORM_EPS = 1e-5
INIT_STD = 0.02


class Attention(nn.Module):
    """Causal multi-head self-attention without biases."""

    def __init__(self, config: GeneratorConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads = layer, config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x: Tensor, lengths: Sequence[int], cache: KVCache | None) -> Tensor:
        """See `Layer.forward`."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # [..., 3, H, d]
        out = varlen_attention(qkv, lengths) if cache is None else cache.attend(self.layer, *qkv.unbind(-3))
        return self.proj(out.flatten(-2))


class Layer(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: GeneratorConfig, layer: int) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.norm1 = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.attn = Attention(config, layer)
        self.norm2 = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.feed_forward = FeedForward(config.width, config.hidden)

    def forward(self, x: Tensor, lengths: Sequence[int], cache: KVCache | None = None) -> Tensor:
        """Transform packed clips `[N, D]` of these lengths, or with a cache new entries `[R, n, D]`."""
        x = x + self._drop(self.attn(self.norm1(x), lengths, cache))
        return x + self._drop(self.feed_forward(self.norm2(x)))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class GeneratorModel(nn.Module):
    """Autoregressive transformer for either kind of condition."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        extra = 2 if config.condition_ids else 1
        self.tokens: nn.Module
        self.output: nn.Module
        if config.levels:
            self.tokens = DigitEmbedding(config.levels, extra, config.width)
            self.output = DigitHead(config.levels, config.mixture, config.width)
        else:
            self.tokens = nn.Embedding(config.codebook_size + extra, config.width)
            self.output = nn.Linear(config.width, config.vocabulary, bias=False)
        self.classes = nn.Embedding(config.classes + 1, config.width) if config.classes else None
        self.positions = nn.Parameter(torch.empty(config.prefix + config.max_entries - 1, config.width))
        self.layers = nn.ModuleList(Layer(config, layer) for layer in range(config.depth))
        self.norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.checkpointing = False
        """Whether to keep only the input of each layer for the gradient and compute the rest again."""
        self.compiled: Any = None
        """The last compiled decode step; see `generation/decode_step.py`."""
        self.initialize()

    def fill_tables(self) -> None:
        """Fill the buffers that no checkpoint holds, for a model that was built on the device "meta"."""
        for module in (self.tokens, self.output):
            if isinstance(module, DigitTable):
                module.fill_table()

    def initialize(self) -> None:
        """Initialize the weights from a normal distribution of standard deviation 0.02, and the output layer to
        zero."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=INIT_STD)
        head = self.output.linear if isinstance(self.output, DigitHead) else self.output
        assert isinstance(head, nn.Linear)
        nn.init.zeros_(head.weight)

    @property
    def device(self) -> torch.device:
        return self.positions.device

    @property
    def dtype(self) -> torch.dtype:
        return self.positions.dtype

    def parameter_counts(self) -> dict[str, int]:
        """Count the parameters, as a model of one component."""
        return {"generator": sum(p.numel() for p in iter_parameters(self))}

    def forward(self, ids: Tensor, condition: Tensor) -> Tensor:
        """Compute the logits of the first entry and of the entry after each one given.

        Args:
            ids: entries `[B, n]`: ids of the codebook and end-of-block tokens. Shorter clips may be padded with any
                value in [0, V), because no entry sees a later one.
            condition: classes `[B]`, or the ids of the first frames `[B, condition_ids]`.

        Returns:
            float32 `[B, n + 1, V]`.

        Raises:
            ValueError: shapes or values do not fit the model.
        """
        self.check(ids, condition)
        b = len(ids)
        x = torch.cat([self.embed_condition(condition), self.tokens(ids)], 1)  # [B, P + n, D]
        positions = torch.arange(x.shape[1], device=x.device).repeat(b)
        x = self.run(x.flatten(0, 1), [x.shape[1]] * b, positions)
        return self.logits(x.unflatten(0, (b, -1))[:, self.config.prefix - 1 :])

    def run(self, x: Tensor, lengths: Sequence[int], positions: Tensor) -> Tensor:
        """Apply the layers to packed, embedded clips.

        Args:
            x: `[N, D]`.
            lengths: number of rows of each clip.
            positions: int64 `[N]`, position of each row in its clip.
        """
        x = F.dropout(x, self.config.token_dropout, self.training) + self.positions[positions]
        for layer in self.layers:
            if self.checkpointing and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(layer, x, lengths, use_reentrant=False)
            else:
                x = layer(x, lengths)
        return x

    def step(self, x: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
        """Apply the layers to new, embedded entries, and return the last of each clip `[R, D]`.

        Args:
            x: `[R, n, D]`.
            positions: int64 `[R, n]`.
            cache: entries of these clips before, with `place` called for the new ones.
        """
        x = x + self.positions[positions]
        for layer in self.layers:
            x = layer(x, (), cache)
        return x[:, -1]

    def logits(self, x: Tensor) -> Tensor:
        """Compute the logits float32 `[..., V]` after rows `[..., D]` of the last layer."""
        out: Tensor = self.output(self.norm(x))
        return out.float()

    def embed_condition(self, condition: Tensor) -> Tensor:
        """Embed classes `[B]`, where the number of classes stands for none, or ids `[B, condition_ids]`, as
        `[B, P, D]`."""
        if self.classes is not None:
            rows: Tensor = self.classes(condition)[:, None]
            return rows
        separator = condition.new_full((len(condition), 1), self.config.separator)
        embedded: Tensor = self.tokens(torch.cat([condition, separator], 1))
        return embedded

    def check(self, ids: Tensor, condition: Tensor) -> None:
        """Raise ValueError unless `ids [B, n]` and the condition fit this model."""
        c = self.config
        if ids.ndim != 2 or ids.is_floating_point() or ids.shape[1] >= c.max_entries:
            raise ValueError(
                f"ids of shape {tuple(ids.shape)} and type {ids.dtype}, expected integers [B, 0..{c.max_entries - 1}]"
            )
        _check_range("ids", ids, c.vocabulary)
        self.check_condition(condition)
        if len(condition) != len(ids):
            raise ValueError(f"{len(condition)} conditions for {len(ids)} rows of ids, expected one each")

    def check_condition(self, condition: Tensor) -> None:
        """Raise ValueError unless the condition fits this model."""
        c = self.config
        shape = tuple(condition.shape)
        if condition.is_floating_point() or shape[1:] != ((c.condition_ids,) if c.condition_ids else ()):
            expected = f"ids of first frames [B, {c.condition_ids}]" if c.condition_ids else "classes [B]"
            raise ValueError(f"condition of shape {shape} and type {condition.dtype}, expected integers: {expected}")
        if c.classes:
            _check_range("classes", condition, c.classes + 1)
        else:
            _check_range("ids of the condition", condition, c.codebook_size)


def _check_range(name: str, values: Tensor, count: int) -> None:
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < count:
        raise ValueError(f"{name} from {int(values.min())} to {int(values.max())}, expected 0 to {count - 1}")
