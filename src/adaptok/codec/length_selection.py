"""Predicted and measured distortions of blocks at their candidate lengths.

The scorer predicts the relative shape of a rate–distortion curve more accurately than its absolute level. The encoder
therefore decodes each block at a few probe lengths, measures the true distortion, and calibrates the prediction to it.

Legend: `B` clips, `C` channels, `S` pixels, `G` blocks per clip, `K` latents per block, `L` candidate lengths, `A`
probe lengths, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adaptok.config.model import Distortion
from adaptok.metrics.distortion import block_distortion, candidate_distortion
from adaptok.metrics.lpips import Lpips
from adaptok.models.kv_cache import BlockKVCache
from adaptok.models.model import Model
from adaptok.models.scorer import BaseScorer
from adaptok.models.tokenizer import Tokenizer

_MIN_DISTORTION = 1e-8
"""Lower bound of distortions, which are compared as logarithms."""
_MIN_FALL = 0.05
"""Smallest fraction of the fall between two probe lengths, in logarithms, that is left for the tokens up to the second
one."""


class BlockScorer:
    """Scores the blocks of B clips one after another, given the lengths that were chosen for earlier blocks.

    Args:
        model: Model in evaluation mode.
        clips: B.
        absolute: Return the predicted distortions even if the scorer has the target "cumulative". By default, its
            distortions of the blocks that are left are then weighted by their number, and are relative to the
            distortion that was predicted for the whole clip. Sums of such scores can be compared between clips.

    Raises:
        ValueError: The model has no scorer.
    """

    def __init__(self, model: Model, clips: int, *, absolute: bool = False) -> None:
        self.model, self.scorer, self.clips = model, require_scorer(model), clips
        self._relative = self.scorer.config.target == "cumulative" and not absolute
        self._cache = self.scorer.cache(clips)
        self.reset()

    def reset(self) -> None:
        """Begin the next clips."""
        self._cache.clear()
        self._lengths: list[list[int]] = [[] for _ in range(self.clips)]
        self._inputs: list[Tensor] = []
        self._last: tuple[Tensor, Tensor] | None = None
        self._frames: Tensor | None = None
        self._first: Tensor | None = None

    def score(self, encoded: Tensor, inputs: Tensor, frames: Tensor | None) -> Tensor:
        """Score the next block at every candidate length: `[B, L]`.

        Args:
            encoded: `[B, 1, K, D]` encoder outputs of the block.
            inputs: `[B, 1, K, D]` decoder inputs of the block.
            frames: `[B, C, pt, S, S]` pixels of the block; only needed if the scorer has probe lengths, or reads them.
        """
        if self._last is not None:
            self.scorer.prefill(*self._last, self._lengths, self._cache)
        features = self.scorer.features(frames, encoded, self._frames)
        self._last, self._frames = (features, inputs), frames
        self._inputs.append(inputs)
        full = [[*row, inputs.shape[2]] for row in self._lengths]
        raw = self.scorer(features, inputs, full, self._cache)
        scores = self.scorer.denormalize(raw)[:, 0]
        if self._relative:
            return self._weigh(scores)
        return calibrate_scores(self.model, scores, frames, torch.cat(self._inputs, 1), self._lengths)

    def _weigh(self, scores: Tensor) -> Tensor:
        """Weigh predicted distortions `[B, L]` of the blocks that are left."""
        if self._first is None:
            self._first, total = scores, scores[:, [scores.shape[1] // 2]]
        else:
            columns = torch.tensor([row[0] for row in self._lengths], device=scores.device)
            columns = (columns // self.scorer.config.length_step - 1).clamp(min=0)
            total = self._first.gather(1, columns[:, None])
        return scores / total * (self.scorer.blocks_per_clip - len(self._lengths[0]))

    def keep(self, lengths: Sequence[int]) -> None:
        """Set the lengths `[B]` of the block that was scored last."""
        for row, length in zip(self._lengths, lengths, strict=True):
            row.append(length)


def require_scorer(model: Model) -> BaseScorer:
    """Return the scorer of a model. Raise a ValueError if it has none."""
    if model.scorer is None:
        raise ValueError(
            f"the model {model.config.name!r} has no scorer, which adaptive lengths need; use uniform lengths or"
            " another model"
        )
    return model.scorer


def calibrate_scores(
    model: Model,
    scores: Tensor,
    block: Tensor | None,
    inputs: Tensor,
    earlier: Sequence[Sequence[int]],
    cache: BlockKVCache | None = None,
) -> Tensor:
    """Calibrate predicted distortions `[B, L]` of a block to those measured at the scorer's probe lengths, if any.

    `earlier` has the lengths `[B][i]` of the blocks before it. Other arguments are as for `measure_block`; with a
    cache, all clips must have the same earlier lengths.
    """
    config = require_scorer(model).config
    if not config.probe_lengths:
        return scores
    assert block is not None
    rows = [slice(n, n + 1) for n in range(len(scores))]
    if all(list(row) == list(earlier[0]) for row in earlier):
        rows = [slice(0, len(scores))]
    lengths, distortion, measured = config.probe_lengths, config.distortion, []
    for row in rows:
        clips, frames = inputs[row], block[row].to(scores.device)
        measured.append(
            measure_block(model.tokenizer, frames, clips, earlier[row.start], lengths, distortion, cache=cache)
        )
    return calibrate_at_probes(scores, torch.cat(measured), lengths, config.length_step)


def measure_block(
    tokenizer: Tokenizer,
    block: Tensor,
    inputs: Tensor,
    earlier: Sequence[int],
    lengths: Sequence[int],
    kind: Distortion,
    lpips: Lpips | None = None,
    cache: BlockKVCache | None = None,
) -> Tensor:
    """Measure the distortions `[B, len(lengths)]` of a block that is decoded at some lengths.

    Args:
        tokenizer: Tokenizer that decodes.
        block: `[B, C, pt, S, S]` in [0, 1], frames of the block.
        inputs: `[B, i + 1, K, D]` decoder inputs of the blocks of the clip up to this one.
        earlier: Lengths of the i blocks before it, the same for all clips.
        lengths: Lengths to decode the block at.
        kind: Kind of distortion; see `block_distortion`.
        lpips: Network of the kind "lpips".
        cache: Decoder cache that already holds the earlier blocks. Afterwards it also holds this block, at the last
            of the lengths.
    """
    index = len(earlier)
    if cache is None:
        cache = tokenizer.decoder_cache(candidates=lengths)
        if index:
            tokenizer.prefill(inputs[:, :index], earlier, cache)
    decoded = tokenizer.decode_candidates(inputs[:, index:], [], lengths, cache).float().clamp(0, 1)
    pairs = zip(decoded.split(1), block.split(1), strict=True)  # one by one: sums must not depend on the batch
    return torch.cat([candidate_distortion(made, true, kind, lpips) for made, true in pairs])


def measure_probes(
    tokenizer: Tokenizer,
    clip: Tensor,
    inputs: Tensor,
    lengths: Sequence[int],
    probes: Sequence[Sequence[int]],
    kind: Distortion,
    lpips: Lpips | None = None,
) -> list[Tensor]:
    """Measure the mean distortion of each block of a clip and all later ones, at several lengths of that block.

    All of them are decoded in one pass, and the clip at its own lengths once.

    Args:
        tokenizer: Tokenizer that decodes.
        clip: `[C, g * pt, S, S]` in [0, 1].
        inputs: `[g, K, D]` decoder inputs of its blocks.
        lengths: Lengths of the g blocks.
        probes: Lengths to measure each block at, which may include its own. The other blocks keep theirs.
        kind: Kind of distortion; see `block_distortion`.
        lpips: Network of the kind "lpips".

    Returns:
        Distortions `[len(probes[i])]` of each block i.
    """
    others = [(i, length) for i, row in enumerate(probes) for length in row if length != lengths[i]]
    decoded = tokenizer.decode_probes(inputs, lengths, others).float().clamp(0, 1)
    pt, g = tokenizer.config.temporal_patch_size, len(lengths)
    blocks = clip.to(inputs.device).unflatten(1, (g, pt)).transpose(0, 1)  # [g, C, pt, S, S]
    original = torch.cat([blocks, *(blocks[i:] for i, _ in others)])
    measured = block_distortion(decoded, original, kind, pt, lpips)[:, 0]
    parts = iter(measured.split([g, *(g - i for i, _ in others)]))
    own = next(parts)
    return [
        torch.stack([(own[i:] if length == lengths[i] else next(parts)).mean() for length in row])
        for i, row in enumerate(probes)
    ]


def measure_cumulative(
    tokenizer: Tokenizer,
    clips: Tensor,
    inputs: Tensor,
    lengths: Sequence[int],
    block: int,
    candidates: Sequence[int],
    kind: Distortion,
    lpips: Lpips | None = None,
) -> Tensor:
    """Measure the mean distortion `[B, n]` of a block and all later ones, at n lengths of that block.

    The blocks before it are decoded once for all candidates.

    Args:
        tokenizer: Tokenizer that decodes.
        clips: `[B, C, g * pt, S, S]` in [0, 1].
        inputs: `[B, g, K, D]` decoder inputs of their blocks.
        lengths: Lengths of the g blocks, the same for all clips. That of `block` is not used.
        block: Index of the block whose length varies.
        candidates: Its n lengths.
        kind: Kind of distortion; see `block_distortion`.
        lpips: Network of the kind "lpips".
    """
    pt, g = tokenizer.config.temporal_patch_size, len(lengths)
    cache = tokenizer.decoder_cache(g - block)
    if block:
        tokenizer.prefill(inputs[:, :block], lengths[:block], cache)
    rows, columns = cache.rows, []
    original = clips[:, :, block * pt :].to(inputs.device)
    for length in candidates:
        cache.keep(rows, block)
        decoded = tokenizer.decode(inputs[:, block:], [[length, *lengths[block + 1 :]]] * len(clips), cache)
        measured = block_distortion(decoded.float().clamp(0, 1), original, kind, pt, lpips)
        columns.append(measured.mean(1))
    return torch.stack(columns, 1)


def calibrate_at_probes(scores: Tensor, measured: Tensor, probe_lengths: Sequence[int], length_step: int) -> Tensor:
    """Scale predicted distortions `[..., L]` so that they equal `measured [..., A]` at the probe lengths.

    The logarithm of the factor is linear in the length between two probe lengths, and constant outside them. If the
    distortion falls from one probe length to the next, all lengths between them stay above the longer one's.
    """
    columns = torch.tensor(probe_lengths, device=scores.device) // length_step - 1
    lengths = torch.arange(scores.shape[-1], device=scores.device)
    target = measured.clamp(min=_MIN_DISTORTION).log()
    shift = target - scores[..., columns].clamp(min=_MIN_DISTORTION).log()
    right = torch.searchsorted(columns, lengths).clamp(max=len(probe_lengths) - 1)
    left = (right - 1).clamp(min=0)
    span = (columns[right] - columns[left]).clamp(min=1)
    weight = ((lengths - columns[left]) / span).clamp(0, 1)
    logs = scores.clamp(min=_MIN_DISTORTION).log() + shift[..., left] * (1 - weight) + shift[..., right] * weight
    fall = (target[..., left] - target[..., right]).clamp(min=0)
    lowest = target[..., right] + _MIN_FALL * (1 - weight) * fall
    inside = (fall > 0) & (lengths > columns[left]) & (lengths < columns[right])
    return torch.where(inside, logs.maximum(lowest), logs).exp()
