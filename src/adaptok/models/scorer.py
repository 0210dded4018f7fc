"""The scorer: how badly would a block look at each candidate length?

Legend: `B` clips, `g` blocks of a call, `K` latents of a block, `L` = K / length_step candidates, `D` width.

Who sees whom: latents_i see the kept latents of blocks up to i. A block is scored with all K of its latents kept, given
the lengths of earlier blocks. Scores at candidates past a block's own length are those of a dropped latent, which sees
only itself: they say nothing about the clip, and are there because the official program gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn

from adaptok.config.model import ScorerConfig, StackConfig, TokenizerConfig
from adaptok.models.layers import NORM_EPS, KeyValueCache, Plan, Segment, TransformerStack, initialize_linears


def scorer_plan(lengths: Sequence[Sequence[int]], first_block: int, length_step: int, read: bool = True) -> Plan:
    """Rows of the blocks from `first_block` on, block after block and within a block clip after clip, kept latents
    only; rows of earlier blocks lie in a cache in the same order.

    Args:
        lengths: of each clip, and every block up to the last of the call.
        read: whether the rows that give scores leave the last layer; else none does.
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
            if read and reads:
                final.append(Segment(slice(len(outputs), len(outputs) + len(reads)), keys))
                outputs.extend(slice(row, row + 1) for row in reads)
    return Plan(tuple(segments), tuple(outputs), tuple(final))


def merge_runs(runs: Sequence[slice]) -> tuple[slice, ...]:
    """Join runs that touch, so that their rows need no copy."""
    merged: list[slice] = []
    for run in runs:
        if run.start == run.stop:
            continue
        if merged and merged[-1].stop == run.start:
            merged[-1] = slice(merged[-1].start, run.stop)
        else:
            merged.append(run)
    return tuple(merged)


class Scorer(nn.Module):
    """Block-causal transformer over latents with a scalar head at every `length_step`-th of them."""

    def __init__(self, config: ScorerConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks_per_clip, self.latents = tokenizer.blocks, tokenizer.latents
        width = config.width
        self.project = nn.Linear(tokenizer.encoder.width + tokenizer.decoder.width, width)
        self.positions = nn.Parameter(torch.randn(self.blocks_per_clip * self.latents, width) * width**-0.5)
        self.stack = TransformerStack(StackConfig(width=width, depth=config.depth, heads=config.heads))
        self.final_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, 1))
        initialize_linears(self)

    def cache(self, clips: int) -> KeyValueCache:
        """For scoring `clips` clips of any lengths block by block."""
        return KeyValueCache(self.config.depth, clips * self.blocks_per_clip * self.latents)

    def forward(
        self,
        encoded: Tensor,
        decoder_inputs: Tensor,
        lengths: Sequence[Sequence[int]],
        *,
        first_block: int = 0,
        cache: KeyValueCache | None = None,
        peek: bool = False,
    ) -> Tensor:
        """Normalised scores `[B, g, L]`.

        Args:
            encoded: `[B, g, K, D]`, encoder outputs.
            decoder_inputs: `[B, g, K, D]`, quantized and projected.
            lengths: `[B][first_block + g]`, of all blocks up to the last one given.
            first_block: index of the first block given; earlier ones lie in `cache`.
            cache: of `cache(B)`.
            peek: leave the cache as it was.
        """
        b, g = encoded.shape[:2]
        x = self._embed(encoded, decoder_inputs, first_block)
        new = [clip[first_block:] for clip in lengths]
        if cache is None and all(tuple(clip) == tuple(lengths[0]) for clip in lengths):  # batched
            x = torch.cat([x[:, i, :length] for i, length in enumerate(new[0])], 1)
            rows = self._score_rows(x, lengths[:1], first_block, cache)
        else:  # packed
            x = torch.cat([x[n, i, : new[n][i]] for i in range(g) for n in range(b)])[None]
            rows = self._score_rows(x, lengths, first_block, cache)[0]
        if cache is not None and not peek:
            cache.keep(cache.rows + x.shape[1])
        return self._scatter(rows, new, first_block)

    def remember(
        self,
        encoded: Tensor,
        decoder_inputs: Tensor,
        lengths: Sequence[Sequence[int]],
        *,
        first_block: int,
        cache: KeyValueCache,
    ) -> None:
        """Add blocks at their chosen lengths to the cache without scoring them; arguments as for `forward`."""
        b, g = encoded.shape[:2]
        x = self._embed(encoded, decoder_inputs, first_block)
        x = torch.cat([x[n, i, : lengths[n][first_block + i]] for i in range(g) for n in range(b)])[None]
        self.stack(x, scorer_plan(lengths, first_block, self.config.length_step, read=False), cache)
        cache.keep(cache.rows + x.shape[1])

    def _embed(self, encoded: Tensor, decoder_inputs: Tensor, first_block: int) -> Tensor:
        positions = self.positions.view(self.blocks_per_clip, self.latents, -1)
        joined = torch.cat([encoded, decoder_inputs.to(encoded.dtype)], -1)
        return self.project(joined) + positions[first_block : first_block + encoded.shape[1]]

    def _score_rows(
        self, x: Tensor, lengths: Sequence[Sequence[int]], first_block: int, cache: KeyValueCache | None
    ) -> Tensor:
        x = self.stack(x, scorer_plan(lengths, first_block, self.config.length_step), cache)
        return self.head(self.final_norm(x))[..., 0].float()

    def _scatter(self, rows: Tensor, lengths: Sequence[Sequence[int]], first_block: int) -> Tensor:
        """Rows in the plan's order to `[B, g, L]`, with the scores of dropped latents in the gaps."""
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
        """`[G, L]`: what the head says of a latent that is dropped, alone with its position."""
        length_step, width = self.config.length_step, self.config.width
        x = self.project.bias + self.positions[length_step - 1 :: length_step].view(-1, 1, width)
        x = self.stack(x, Plan((Segment(slice(0, 1), (slice(0, 1),)),)))
        return self.head(self.final_norm(x))[..., 0].float().view(self.blocks_per_clip, -1)

    def denormalize(self, scores: Tensor) -> Tensor:
        """Network outputs to distortions."""
        values = scores.float() * self.config.std + self.config.mean
        return values.exp() if self.config.scale == "log" else values

    def normalize(self, distortions: Tensor) -> Tensor:
        """Inverse of `denormalize`; distortions of 0 are floored where the scale is logarithmic."""
        values = distortions.clamp(min=1e-8).log() if self.config.scale == "log" else distortions
        return (values - self.config.mean) / self.config.std
