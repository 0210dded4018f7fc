"""The generator: an autoregressive transformer over the ids of a clip.

A clip is written as the kept ids of each block followed by an end-of-block mark. In front of it stands the condition:
one row for a class, or the ids of first frames and a separator. The architecture is LLaMA's (RMSNorm, SwiGLU, no
biases) with learned absolute positions.

Legend: `B` clips, `n` entries of a row, `P` rows of the condition, `N` rows of packed clips, `V` vocabulary (ids and
the mark), `D` width, `H` heads, `d` = D / H, `R` rows that are written at the same time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from adaptok.config.model import GeneratorConfig
from adaptok.models.feed_forward import FeedForward
from adaptok.models.kv_cache import Memory
from adaptok.ops.packed_attention import PackedCausalAttention

NORM_EPS = 1e-5
INIT_STD = 0.02


class Attention(nn.Module):
    """Causal multi-head self-attention without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        """`x [N, D]`: clips of these lengths, one after the other, none of which sees another."""
        qkv = self.qkv(x).view(len(x), 3, self.heads, -1)  # [N, 3, H, d]
        if qkv.device.type == "cpu" and qkv.requires_grad:
            out = PackedCausalAttention.apply(qkv, lengths)
        else:
            q, k, v = qkv.unbind(1)
            out = packed_causal_attention(q, k, v, lengths)
        return self.proj(out.flatten(1))

    def step(self, x: Tensor, memory: Memory, layer: int) -> Tensor:
        """`x [R, n, D]`, after what the memory holds of their rows; it remembers them too."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)  # [R, n, H, d]
        return self.proj(memory.attend(layer, q, k, v).flatten(2))


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.norm1 = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.attn = Attention(config.width, config.heads)
        self.norm2 = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.feed_forward = FeedForward(config.width, config.hidden)

    def forward(self, x: Tensor, lengths: Sequence[int]) -> Tensor:
        x = x + self._drop(self.attn(self.norm1(x), lengths))
        return x + self._drop(self.feed_forward(self.norm2(x)))

    def step(self, x: Tensor, memory: Memory, layer: int) -> Tensor:
        x = x + self.attn.step(self.norm1(x), memory, layer)
        return x + self.feed_forward(self.norm2(x))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class DigitEmbedding(nn.Module):
    """Ids of a scalar quantizer as the sum of one row for each digit; entries from the codebook on have their own row.

    Args:
        levels: of each digit, the first of them the fastest.
        extra: entries after the ids: the end-of-block mark, and a separator.
    """

    digits: Tensor

    def __init__(self, levels: Sequence[int], extra: int, width: int) -> None:
        super().__init__()
        self.rows = nn.Embedding(sum(levels) + extra, width)
        self.levels, self.extra_start, self.codebook_size = tuple(levels), sum(levels), math.prod(levels)
        self.register_buffer("digits", digit_rows(levels), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        own = self.rows((ids - self.codebook_size).clamp(min=0) + self.extra_start)
        rows = self.rows(self.digits[ids.clamp(max=self.codebook_size - 1)]).sum(-2)
        return torch.where((ids < self.codebook_size)[..., None], rows, own)


class DigitHead(nn.Module):
    """Log-probabilities of ids by their digits: a mixture of products of independent digits, and the mark apart.

    log p(id) = log(1 - p(end)) + log sum_m w_m prod_i p_mi(digit i of the id)
    """

    digits: Tensor

    def __init__(self, levels: Sequence[int], mixture: int, width: int) -> None:
        super().__init__()
        self.levels, self.mixture = tuple(levels), mixture
        self.linear = nn.Linear(width, mixture * (sum(levels) + 1) + 1, bias=False)
        self.register_buffer("digits", digit_rows(levels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D]` to log-probabilities `[..., V]`."""
        parts, ends = self._parts(x)
        total = parts[0]
        for part in parts[1:]:  # the first digit is the fastest, so the last dimension
            total = (part[..., :, None] + total[..., None, :]).flatten(-2)
        ids = torch.logsumexp(total, -2)
        return torch.cat([ids + F.logsigmoid(-ends), F.logsigmoid(ends)], -1)

    def log_likelihood(self, x: Tensor, targets: Tensor) -> Tensor:
        """Log-probability `[N]` of entries `[N]` after `[N, D]`, without those of all the others."""
        parts, ends = self._parts(x)
        size = math.prod(self.levels)
        digits = self.digits[targets.clamp(max=size - 1)]  # [N, digits]
        starts = [sum(self.levels[:i]) for i in range(len(self.levels))]
        total: Tensor | float = 0.0
        for i, part in enumerate(parts):
            own = (digits[:, i] - starts[i])[:, None, None].expand(-1, self.mixture, 1)
            total = total + part.gather(-1, own)[..., 0]
        assert isinstance(total, Tensor)
        ids = torch.logsumexp(total, -1) + F.logsigmoid(-ends[:, 0])
        return torch.where(targets < size, ids, F.logsigmoid(ends[:, 0]))

    def _parts(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Log-probabilities `[..., mixture, levels]` of each digit, the first with the mixture's weights; and the logit
        `[..., 1]` of the mark."""
        out = self.linear(x).float()
        rows = out[..., :-1].unflatten(-1, (self.mixture, -1))
        weights = rows[..., -1].log_softmax(-1)[..., None]
        parts = [part.log_softmax(-1) for part in rows[..., :-1].split(self.levels, -1)]
        return [parts[0] + weights, *parts[1:]], out[..., -1:]


def digit_rows(levels: Sequence[int]) -> Tensor:
    """int64 `[ids, digits]`: the row of each digit of every id; the rows of all digits stand one after another."""
    ids = torch.arange(math.prod(levels))
    columns, start = [], 0
    for level in levels:
        columns.append(ids % level + start)
        ids, start = ids // level, start + level
    return torch.stack(columns, 1)


class GeneratorModel(nn.Module):
    """One model for both conditions.

    Raises:
        ValueError: the configuration is not valid.
    """

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
        self.positions = nn.Parameter(torch.empty(config.prefix + config.longest - 1, config.width))
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.width, eps=NORM_EPS)
        self.checkpointing = False
        """Keep only the input of each layer for the gradient, and compute the rest again."""
        self.compiled: Any = None
        """The step as it was compiled last, see `models/stepping.py`."""
        self.initialize()

    def make_tables(self) -> None:
        """Fill what is no weight, and lies in no file: for a model that was built without memory."""
        for part in (self.tokens, self.output):
            if isinstance(part, DigitEmbedding | DigitHead):
                part.digits = digit_rows(part.levels)

    def initialize(self) -> None:
        """Normal weights of standard deviation 0.02, an output layer of zeros."""
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
        """Parameters, all of them in one part."""
        return {"generator": sum(p.numel() for p in self.parameters())}

    def forward(self, ids: Tensor, condition: Tensor) -> Tensor:
        """Logits float32 `[B, n + 1, V]`: of the first entry, and of the one after each of `ids [B, n]`.

        Args:
            ids: entries of rows: ids of the codebook, and end-of-block marks. Rows that are shorter may be padded with
                anything in [0, V): no entry sees a later one.
            condition: classes `[B]`, or the ids of first frames `[B, condition_ids]`.

        Raises:
            ValueError: shapes or values do not fit.
        """
        self.check(ids, condition)
        b, n = ids.shape
        x = torch.cat([self.embed_condition(condition), self.tokens(ids)], 1)
        x = self.run(x.flatten(0, 1), [x.shape[1]] * b, torch.arange(x.shape[1], device=x.device).repeat(b))
        x = x.view(b, -1, x.shape[-1])[:, self.config.prefix - 1 :]
        assert x.shape[1] == n + 1
        return self.logits(x)

    def run(self, x: Tensor, lengths: Sequence[int], positions: Tensor) -> Tensor:
        """Layers over packed rows `[N, D]` of clips of these lengths; `positions [N]` of each in its clip."""
        x = F.dropout(x + self.positions[positions], self.config.token_dropout, self.training)
        for layer in self.layers:
            if self.checkpointing and torch.is_grad_enabled():
                x = torch.utils.checkpoint.checkpoint(layer, x, lengths, use_reentrant=False)
            else:
                x = layer(x, lengths)
        return x

    def step(self, x: Tensor, positions: Tensor, memory: Memory) -> Tensor:
        """Layers over new entries `x [R, n, D]`, embedded, at `positions [R, n]`; gives the last of each row `[R, D]`.

        The memory has been told which rows they are of.
        """
        x = x + self.positions[positions]
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, Layer)
            x = layer.step(x, memory, index)
        return x[:, -1]

    def logits(self, x: Tensor) -> Tensor:
        """What follows rows `[…, D]` out of the layers: float32 `[…, V]`."""
        out: Tensor = self.output(self.norm(x))
        return out.float()

    def embed_condition(self, condition: Tensor) -> Tensor:
        """Rows `[B, P, D]` of classes `[B]` (the number of classes stands for none), or of ids `[B, condition_ids]`."""
        if self.classes is not None:
            rows: Tensor = self.classes(condition)[:, None]
            return rows
        separator = condition.new_full((len(condition), 1), self.config.end + 1)
        embedded: Tensor = self.tokens(torch.cat([condition, separator], 1))
        return embedded

    def check(self, ids: Tensor, condition: Tensor) -> None:
        """Raise ValueError unless `ids [B, n]` and the condition fit this model."""
        c = self.config
        if ids.ndim != 2 or ids.is_floating_point() or ids.shape[1] >= c.longest:
            raise ValueError(
                f"ids of shape {tuple(ids.shape)} and type {ids.dtype}, expected integers [B, 0..{c.longest - 1}]"
            )
        _check_range("ids", ids, c.vocabulary)
        self.check_condition(condition)
        if len(condition) != len(ids):
            raise ValueError(f"{len(condition)} conditions for {len(ids)} rows of ids, expected one each")

    def check_condition(self, condition: Tensor) -> None:
        """Raise ValueError unless the condition is one of this model's."""
        c = self.config
        shape = tuple(condition.shape)
        if condition.is_floating_point() or shape[1:] != ((c.condition_ids,) if c.condition_ids else ()):
            wanted = f"ids of first frames [B, {c.condition_ids}]" if c.condition_ids else "classes [B]"
            raise ValueError(f"a condition of shape {shape} and type {condition.dtype}, expected {wanted}, integers")
        if c.classes:
            _check_range("classes", condition, c.classes + 1)
        else:
            _check_range("ids of the condition", condition, c.codebook_size)


def _check_range(what: str, values: Tensor, count: int) -> None:
    if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < count:
        raise ValueError(f"{what} from {int(values.min())} to {int(values.max())}, expected 0 to {count - 1}")


def packed_causal_attention(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """Causal attention `[N, H, d]` within each of the clips, which stand one after the other.

    On a CPU clip by clip, so that short ones cost what they are long; elsewhere in one padded call.
    """
    if len(set(lengths)) == 1:
        q, k, v = (x.unflatten(0, (len(lengths), -1)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(0, 1)
    if q.device.type == "cpu":
        parts = zip(*(x.transpose(0, 1)[None].split(list(lengths), 2) for x in (q, k, v)), strict=True)
        rows = [F.scaled_dot_product_attention(a, b, c, is_causal=True) for a, b, c in parts]
        return torch.cat(rows, 2)[0].transpose(0, 1)
    size, place = max(lengths), _places(lengths, q.device)
    padded = [x.new_zeros(len(lengths) * size, *x.shape[1:]).index_copy(0, place, x) for x in (q, k, v)]
    q, k, v = (x.unflatten(0, (len(lengths), size)).transpose(1, 2) for x in padded)
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(0, 1)
    return out[place]


def _places(lengths: Sequence[int], device: torch.device) -> Tensor:
    """int64 `[N]`: the place of each packed row in `[clips * longest]`."""
    counts = torch.tensor(lengths, device=device)
    within = torch.arange(sum(lengths), device=device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    clip = torch.arange(len(lengths), device=device).repeat_interleave(counts)
    return clip * max(lengths) + within
