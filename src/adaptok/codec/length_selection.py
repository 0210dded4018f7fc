"""What each length of a block costs: measured by decoding, and predictions that go through what was measured.

A scorer sees the latents alone, so it knows the shape of a block's curve better than its height. Decoding the block at
a few lengths, the probe lengths, gives the height and costs little; between probe lengths the prediction decides.

Legend: `B` clips, `C` channels, `S` pixels, `K` latents of a block, `L` candidate lengths, `A` probe lengths, `D`
width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adaptok.config.model import Distortion
from adaptok.metrics.distortion import block_distortion
from adaptok.metrics.lpips import Lpips
from adaptok.models.kv_cache import BlockKVCache
from adaptok.models.model import Model
from adaptok.models.tokenizer import Tokenizer

_LEAST = 1e-8
"""Distortions are compared as logarithms, and kept above this."""
_LEAST_SHARE = 0.05
"""Of the fall between two probe lengths, in logarithms: what the tokens up to the second are given at least."""


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
    """True distortions `[B, len(lengths)]` of a block decoded at some lengths.

    Args:
        block: `[B, C, pt, S, S]` in [0, 1], its frames.
        inputs: `[B, i + 1, K, D]` decoder inputs of the blocks of the clip up to this one.
        earlier: lengths of the i blocks before it, the same for all clips.
        kind: of distortion; see `block_distortion`.
        cache: of the decoder, that holds the earlier blocks already. Afterwards it holds this block too, at the last of
            the lengths.
    """
    index, pt = len(earlier), tokenizer.config.temporal_patch_size
    if cache is None:
        cache = tokenizer.decoder_cache()
        if index:
            tokenizer.prefill(inputs[:, :index], earlier, cache)
    held = cache.rows
    columns = []
    for length in lengths:
        cache.keep(held)
        decoded = tokenizer.decode(inputs[:, index:], [[length]] * len(block), first_block=index, cache=cache)
        decoded = decoded.float().clamp(0, 1)
        pairs = zip(decoded.split(1), block.split(1), strict=True)  # one by one: sums must not depend on the batch
        columns.append(torch.cat([block_distortion(made, true, kind, pt, lpips)[:, 0] for made, true in pairs]))
    return torch.stack(columns, 1)


def calibrate_at_probes(scores: Tensor, measured: Tensor, probe_lengths: Sequence[int], length_step: int) -> Tensor:
    """Predicted distortions `[..., L]` times what makes them `measured [..., A]` at the probe lengths.

    The factor's logarithm is linear in the length between two probe lengths, and constant outside. Where more
    tokens help from one probe length to the next, no length in between is as good as the longer one.
    """
    columns = torch.tensor(probe_lengths, device=scores.device) // length_step - 1
    lengths = torch.arange(scores.shape[-1], device=scores.device)
    wanted = measured.clamp(min=_LEAST).log() - scores[..., columns].clamp(min=_LEAST).log()
    right = torch.searchsorted(columns, lengths).clamp(max=len(probe_lengths) - 1)
    left = (right - 1).clamp(min=0)
    span = (columns[right] - columns[left]).clamp(min=1)
    share = ((lengths - columns[left]) / span).clamp(0, 1)
    logs = scores.clamp(min=_LEAST).log() + wanted[..., left] * (1 - share) + wanted[..., right] * share
    found = measured.clamp(min=_LEAST).log()
    fall = (found[..., left] - found[..., right]).clamp(min=0)
    least = found[..., right] + _LEAST_SHARE * (1 - share) * fall
    inside = (fall > 0) & (lengths > columns[left]) & (lengths < columns[right])
    return torch.where(inside, logs.maximum(least), logs).exp()


def calibrate_scores(
    model: Model,
    scores: Tensor,
    block: Tensor,
    inputs: Tensor,
    earlier: Sequence[int],
    cache: BlockKVCache | None = None,
) -> Tensor:
    """Predicted distortions `[B, L]` of a block, corrected by what is measured at the scorer's probe lengths.

    Without probe lengths they come back as they are.

    Args:
        block, inputs, earlier, cache: as for `measure_block`.
    """
    assert model.scorer is not None
    config = model.scorer.config
    if not config.probe_lengths:
        return scores
    measured = measure_block(
        model.tokenizer, block.to(scores.device), inputs, earlier, config.probe_lengths, config.distortion, cache=cache
    )
    return calibrate_at_probes(scores, measured, config.probe_lengths, config.length_step)
