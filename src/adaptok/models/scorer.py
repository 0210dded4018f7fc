"""Scorers: predicted distortion of each block at every candidate length.

`Scorer` is a transformer over latents, `SpectrumScorer` (`models/spectrum_scorer.py`) an MLP over the energies of
frequency bands. The rest of this text is about the transformer.

Latents of block i see the kept latents of blocks up to i. A block is scored with all of its K latents, given the
lengths of earlier blocks. Scores at candidates beyond a block's own length are those of a dropped latent, which sees
only itself. They carry no information about the clip and are returned because the official program returns them.

Legend: `B` clips, `g` blocks of a call, `G` blocks of a clip, `K` latents of a block, `L` = K / length_step candidate
lengths, `D` width, `N` rows of a transformer call.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from adaptok.config.model import ScorerConfig
from adaptok.config.tokenizer import TokenizerConfig
from adaptok.config.transformer import StackConfig
from adaptok.models.kv_cache import BlockKVCache
from adaptok.models.transformer import NORM_EPS, Plan, TransformerStack
from adaptok.ops.block_causal_attention import Segment


def scorer_plan(lengths: Sequence[Sequence[int]], first_block: int, length_step: int, scores: bool = True) -> Plan:
    """Plan the kept latents of the blocks from `first_block` on, block after block and clip after clip within a block.
    The cache holds earlier blocks in the same order.

    Args:
        lengths: of each clip and every block up to the last one of the call.
        scores: whether the latents that give scores leave the last layer. Otherwise none does.
    """
    clips, blocks = len(lengths), len(lengths[0])
    ends = list(accumulate(lengths[n][i] for i in range(blocks) for n in range(clips)))
    runs = [
        [slice(ends[i * clips + n] - lengths[n][i], ends[i * clips + n]) for i in range(blocks)] for n in range(clips)
    ]
    past = ends[first_block * clips - 1] if first_block else 0
    segments: list[Segment] = []
    final: list[Segment] = []
    outputs: list[slice] = []
    for i in range(first_block, blocks):
        for n in range(clips):
            own = runs[n][i]
            if own.start == own.stop:
                continue
            keys = merge_runs(runs[n][: i + 1])
            rows = slice(own.start - past, own.stop - past)
            segments.append(Segment(rows, keys))
            reads = range(rows.start + length_step - 1, rows.stop, length_step)
            if scores and reads:
                final.append(Segment(slice(len(outputs), len(outputs) + len(reads)), keys))
                outputs.extend(slice(row, row + 1) for row in reads)
    return Plan(tuple(segments), tuple(outputs), tuple(final))


def merge_runs(runs: Sequence[slice]) -> tuple[slice, ...]:
    """Merge adjacent runs, so that their rows need no copy."""
    merged: list[slice] = []
    for run in runs:
        if run.start == run.stop:
            continue
        if merged and merged[-1].stop == run.start:
            merged[-1] = slice(merged[-1].start, run.stop)
        else:
            merged.append(run)
    return tuple(merged)


def polynomial_fit(candidates: int, degree: int) -> Tensor:
    """Return the matrix `[L, L]` that fits values at the lengths 1 … L by a polynomial in the logarithm of the length.

    The degree is less than L.
    """
    logs = torch.arange(1, candidates + 1, dtype=torch.float64, device="cpu").log()
    basis = torch.linalg.qr(torch.stack([logs**power for power in range(degree + 1)], 1)).Q
    return (basis @ basis.T).float()


class BaseScorer(nn.Module):
    """What all scorers share: scales of the scores, and the shape of their curves.

    A scorer reads features of each block, which `features` computes, and the lengths of earlier blocks.
    """

    curve: Tensor | None
    smoothing: Tensor | None

    def __init__(self, config: ScorerConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks_per_clip, self.latents = tokenizer.blocks, tokenizer.latents
        # on the CPU even while weights are on the meta device, because these values do not come from a file of weights
        curve = torch.tensor(config.curve, dtype=torch.float32, device="cpu") if config.curve else None
        smoothing = None if config.degree is None else polynomial_fit(self.latents // config.length_step, config.degree)
        self._tables = {"curve": curve, "smoothing": smoothing}
        for name, table in self._tables.items():
            self.register_buffer(name, table, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> BaseScorer:
        """Move or convert all tensors, except that `curve` and `smoothing` stay in float32: neighbouring lengths differ
        by less than bfloat16 resolves."""
        super()._apply(fn, recurse)
        for name, table in self._tables.items():
            if table is not None:
                setattr(self, name, table.to(getattr(self, name).device))
        return self

    @abstractmethod
    def cache(self, clips: int) -> BlockKVCache:
        """Create an empty cache for scoring `clips` clips block by block."""

    @abstractmethod
    def features(self, clips: Tensor | None, encoded: Tensor, previous: Tensor | None = None) -> Tensor:
        """Return what the scorer reads of blocks `[B, g, ...]`.

        Args:
            clips: `[B, C, g * pt, S, S]` in [0, 1], the pixels of the blocks; only needed if `config.reads` is
                "spectrum".
            encoded: encoder outputs `[B, g, K, D]`.
            previous: pixels `[B, C, pt, S, S]` of the block before them; None at the beginning of a clip.
        """

    @abstractmethod
    def forward(
        self,
        features: Tensor,
        decoder_inputs: Tensor,
        lengths: Sequence[Sequence[int]],
        cache: BlockKVCache | None = None,
    ) -> Tensor:
        """Compute normalized scores `[B, g, L]`; `denormalize` converts them to distortions.

        Args:
            features: `[B, g, ...]`, from `features`.
            decoder_inputs: quantized and projected latents `[B, g, K, D]`.
            lengths: of each clip and every block up to the last one given.
            cache: from `cache(B)`, with the earlier blocks; see `prefill`. The blocks given are not added.
        """

    @abstractmethod
    def prefill(
        self, features: Tensor, decoder_inputs: Tensor, lengths: Sequence[Sequence[int]], cache: BlockKVCache
    ) -> None:
        """Add blocks at their chosen lengths to the cache without scoring them; see `forward`."""

    def shape(self, scores: Tensor, first_block: int = 0) -> Tensor:
        """Turn the outputs of the network `[..., g, L]` into normalized scores, by `degree` and `curve`."""
        if self.smoothing is not None:
            # not as a matrix product, which autocast would compute in half precision
            scores = (scores.float()[..., None] * self.smoothing).sum(-2)
        return scores if self.curve is None else scores + self.curve[first_block : first_block + scores.shape[-2]]

    def denormalize(self, scores: Tensor) -> Tensor:
        """Convert normalized scores to distortions."""
        values = scores.float() * self.config.std + self.config.mean
        return values.exp() if self.config.scale == "log" else values

    def normalize(self, distortions: Tensor) -> Tensor:
        """Convert distortions to normalized scores. On a logarithmic scale, distortions below 1e-8 count as 1e-8."""
        values = distortions.clamp(min=1e-8).log() if self.config.scale == "log" else distortions
        return (values - self.config.mean) / self.config.std


class Scorer(BaseScorer):
    """Block-causal transformer over latents, with a scalar head at each candidate length. Its linear layers keep
    PyTorch's initialization, as in the official program."""

    def __init__(self, config: ScorerConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__(config, tokenizer)
        width = config.width
        self.project = nn.Linear(tokenizer.encoder.width + tokenizer.decoder.width, width)
        self.positions = nn.Parameter(torch.randn(self.blocks_per_clip * self.latents, width) * width**-0.5)
        self.stack = TransformerStack(StackConfig(width=width, depth=config.depth, heads=config.heads))
        self.final_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, 1))

    def features(self, clips: Tensor | None, encoded: Tensor, previous: Tensor | None = None) -> Tensor:
        """Return the encoder outputs."""
        return encoded

    def cache(self, clips: int) -> BlockKVCache:
        """Create an empty cache for scoring `clips` clips block by block."""
        return BlockKVCache(self.config.depth, clips * self.blocks_per_clip * self.latents)

    def forward(
        self,
        features: Tensor,
        decoder_inputs: Tensor,
        lengths: Sequence[Sequence[int]],
        cache: BlockKVCache | None = None,
    ) -> Tensor:
        """Compute normalized scores; see `BaseScorer.forward`. Features are encoder outputs `[B, g, K, D]`."""
        b, g = features.shape[:2]
        first_block = 0 if cache is None else cache.blocks
        x = self._embed(features, decoder_inputs, first_block)
        new = [clip[first_block:] for clip in lengths]
        if cache is None and all(tuple(clip) == tuple(lengths[0]) for clip in lengths):  # batched
            x = torch.cat([x[:, i, :length] for i, length in enumerate(new[0])], 1)
            rows = self._score_rows(x, scorer_plan(lengths[:1], first_block, self.config.length_step), None)
        else:  # packed
            x = torch.cat([x[n, i, : new[n][i]] for i in range(g) for n in range(b)])[None]
            rows = self._score_rows(x, scorer_plan(lengths, first_block, self.config.length_step), cache)[0]
        return self.shape(self._scatter(rows, new, first_block), first_block)

    def prefill(
        self, features: Tensor, decoder_inputs: Tensor, lengths: Sequence[Sequence[int]], cache: BlockKVCache
    ) -> None:
        """Add blocks at their chosen lengths to the cache without scoring them; see `forward`."""
        (b, g), first_block = features.shape[:2], cache.blocks
        x = self._embed(features, decoder_inputs, first_block)
        x = torch.cat([x[n, i, : lengths[n][first_block + i]] for i in range(g) for n in range(b)])[None]
        self.stack(x, scorer_plan(lengths, first_block, self.config.length_step, scores=False), cache)
        cache.keep(cache.rows + x.shape[1], first_block + g)

    def _embed(self, encoded: Tensor, decoder_inputs: Tensor, first_block: int) -> Tensor:
        positions = self.positions.view(self.blocks_per_clip, self.latents, -1)
        joined = torch.cat([encoded, decoder_inputs.to(encoded.dtype)], -1)
        return self.project(joined) + positions[first_block : first_block + encoded.shape[1]]

    def _score_rows(self, x: Tensor, plan: Plan, cache: BlockKVCache | None) -> Tensor:
        return self.head(self.final_norm(self.stack(x, plan, cache)))[..., 0].float()

    def _scatter(self, rows: Tensor, lengths: Sequence[Sequence[int]], first_block: int) -> Tensor:
        """Arrange rows in the order of the plan as `[B, g, L]`, and fill the gaps with the scores of dropped
        latents."""
        b, g, length_step = len(lengths), len(lengths[0]), self.config.length_step
        levels = self.latents // length_step
        if all(length == self.latents for clip in lengths for length in clip):
            return rows.view(b, g, levels) if rows.ndim == 2 else rows.view(g, b, levels).transpose(0, 1)
        dropped = self._dropped_scores()[first_block : first_block + g]
        scores = dropped.expand(b, -1, -1).clone()
        if rows.ndim == 2:
            kept = torch.tensor([[j < length // length_step for j in range(levels)] for length in lengths[0]])
            scores[:, kept.to(scores.device)] = rows
            return scores
        row = 0
        for i in range(g):
            for n in range(b):
                count = lengths[n][i] // length_step
                scores[n, i, :count] = rows[row : row + count]
                row += count
        return scores

    def _dropped_scores(self) -> Tensor:
        """Compute the scores `[G, L]` of latents that are dropped: each alone, with its position only."""
        length_step, width = self.config.length_step, self.config.width
        x = self.project.bias + self.positions[length_step - 1 :: length_step].view(-1, 1, width)
        plan = Plan((Segment(slice(0, 1), (slice(0, 1),)),))
        return self._score_rows(x, plan, None).view(self.blocks_per_clip, -1)
