"""Scores of whole clips from a scorer with the target "cumulative".

Such a scorer predicts C_i(l), the mean distortion of block i and all later blocks of a clip if block i keeps l tokens,
because later blocks also see the tokens of earlier ones. Allocation needs terms that add up over blocks. To first order
around reference lengths r, the total distortion of a clip of g blocks is the sum over i of

    S_i(l) = D_i + (g - i) * (C_i(l) - C_i(r_i)),    D_i = (g - i) * C_i(r_i) - (g - i - 1) * C_{i+1}(r_{i+1})

where D_i is the distortion of block i at the reference lengths. Divided by the mean of D over the clip, S_i is
relative: an allocation that minimizes the sum over clips then minimizes the mean logarithm of their distortion, that
is, it maximizes their mean PSNR, instead of serving the clips with the largest errors only.

Legend: `B` clips, `C` channels, `S` pixels, `g` blocks per clip, `pt` frames per block, `K` latents per block, `L`
candidate lengths, `D` width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adaptok.allocation.knapsack import allocate
from adaptok.codec.length_selection import (
    BlockScorer,
    calibrate_at_probes,
    measure_cumulative,
    measure_probes,
    require_scorer,
)
from adaptok.models.model import Model
from adaptok.models.spectrum_scorer import SpectrumScorer

REFERENCE_FRACTION = 2 / 3
"""Reference lengths of the first round, as a fraction of all tokens. With true distortions instead of predictions, a
choice around them reaches 91%, 83% and 88% of the oracle's gain over uniform lengths at 96, 192 and 384 tokens per clip
(version 3 of the bundled tokenizer, 12 validation clips)."""
_MIN_DISTORTION = 1e-8
_MIN_SHARE = 0.05
"""Smallest distortion of a block at the reference lengths, relative to the mean of its clip."""
TOLERANCE = 1.0046
"""Largest accepted ratio of the distortion of a clip to that with an effort of 0. It corresponds to 0.02 dB of PSNR."""


def cumulative_scores(
    model: Model,
    encoded: Tensor,
    inputs: Tensor,
    clips: Tensor | None,
    budget: float | None,
    effort: int,
    *,
    relative: bool = True,
) -> Tensor:
    """Score every block of clips at every candidate length, by terms that add up to the distortion of a clip.

    Args:
        model: Model with a scorer of the target "cumulative".
        encoded: `[B, g, K, D]` encoder outputs.
        inputs: `[B, g, K, D]` decoder inputs.
        clips: `[B, C, g * pt, S, S]` in [0, 1]; only needed for an effort above 0, or by a scorer that reads them.
        budget: Tokens per block that lengths are chosen for; None if unknown.
        effort: 0 scores blocks once, around reference lengths. 1 chooses lengths with the same budget for every
            clip, and scores again around these. 2 decodes each clip at them, and with each block at about a third and
            at twice its length, and calibrates the scores to the measured distortions. 3 then measures every candidate
            length of each block, around the lengths that 2 gives. Efforts above 0 also decode each clip at the lengths
            that the first and the last scores give it with that budget. If the last ones make it worse by more than
            0.02 dB, it keeps the first scores. Without a budget, the effort is 0.
        relative: Divide the scores of each clip by its mean distortion at the reference lengths.

    Returns:
        float32 `[B, g, L]`.
    """
    scorer = require_scorer(model)
    b, g, k = encoded.shape[:3]
    step = scorer.config.length_step
    reference = max(1, round(REFERENCE_FRACTION * k / step)) * step
    lengths = [[reference] * g for _ in range(b)]
    scores = _additive(_predict(model, encoded, inputs, clips, lengths), lengths, step)
    first = _relative(scores, lengths, step) if relative else scores
    if budget is None or effort == 0:
        return first
    assert clips is not None
    for round_ in range(effort):
        lengths = _allocate_alone(scores, budget, step)
        predicted = _predict(model, encoded, inputs, clips, lengths)
        if round_ > 0:
            predicted = _calibrate(model, predicted, inputs, clips, lengths, everywhere=round_ > 1)
        scores = _additive(predicted, lengths, step)
    last = _relative(scores, lengths, step) if relative else scores
    rows = zip(_allocate_alone(first, budget, step), _allocate_alone(last, budget, step), strict=True)
    worse = [_is_worse(model, inputs[n], clips[n], *pair) for n, pair in enumerate(rows)]
    return torch.where(torch.tensor(worse, device=last.device)[:, None, None], first, last)


def _allocate_alone(scores: Tensor, budget: float, step: int) -> list[list[int]]:
    """Choose the lengths of each clip with a budget of its own, in tokens per block."""
    total = budget * scores.shape[1]
    return [allocate(row, total, length_step=step).lengths.tolist() for row in scores.double().cpu().numpy()]


def _is_worse(model: Model, inputs: Tensor, clip: Tensor, before: Sequence[int], after: Sequence[int]) -> bool:
    """Decode a clip at two choices of lengths, and say whether the second one is worse by more than the tolerance."""
    kind = require_scorer(model).config.distortion
    if before == after or kind == "lpips":  # which needs a network
        return False
    first, last = (
        float(measure_cumulative(model.tokenizer, clip[None], inputs[None], row, 0, row[:1], kind))
        for row in (before, after)
    )
    return last > first * TOLERANCE


def _relative(scores: Tensor, lengths: Sequence[Sequence[int]], step: int) -> Tensor:
    """Divide scores by the mean distortion of their clip at some lengths."""
    return scores / scores_at(scores, lengths, step).mean(1)[:, None, None]


def _predict(
    model: Model, encoded: Tensor, inputs: Tensor, clips: Tensor | None, lengths: Sequence[Sequence[int]]
) -> Tensor:
    """Predict C `[B, g, L]` of each block, given the lengths of those before it, and what is known of later ones."""
    if isinstance(model.scorer, SpectrumScorer):
        features = model.scorer.features(clips, encoded)
        return model.scorer.denormalize(model.scorer(features, inputs, lengths, lookahead=True))
    scorer = BlockScorer(model, len(encoded), absolute=True)
    columns, pt = [], model.config.tokenizer.temporal_patch_size
    for i in range(encoded.shape[1]):
        block = slice(i, i + 1)
        frames = None if clips is None else clips[:, :, i * pt : (i + 1) * pt]
        columns.append(scorer.score(encoded[:, block], inputs[:, block], frames))
        scorer.keep([row[i] for row in lengths])
    return torch.stack(columns, 1)


def _calibrate(
    model: Model,
    predicted: Tensor,
    inputs: Tensor,
    clips: Tensor,
    lengths: Sequence[Sequence[int]],
    *,
    everywhere: bool,
) -> Tensor:
    """Calibrate C to measurements at the length of each block, about a third of it, and twice it, or at all lengths."""
    config, k = require_scorer(model).config, inputs.shape[2]
    step = config.length_step
    calibrated = predicted.clone()
    for n, row in enumerate(lengths):
        if everywhere:
            probes = [list(range(step, k + 1, step))] * len(row)
        else:
            probes = [sorted({max(1, length // step // 3) * step, length, min(k, 2 * length)}) for length in row]
        measured = measure_probes(model.tokenizer, clips[n], inputs[n], row, probes, config.distortion)
        for i, values in enumerate(measured):
            calibrated[n, i] = calibrate_at_probes(predicted[n, i], values, probes[i], step)
    return calibrated


def _additive(cumulative: Tensor, lengths: Sequence[Sequence[int]], step: int) -> Tensor:
    """Convert C to S, `[B, g, L]`."""
    left = torch.arange(cumulative.shape[1], 0, -1, device=cumulative.device)  # g - i
    at_reference = scores_at(cumulative, lengths, step)
    sums = at_reference * left
    own = sums - torch.cat([sums[:, 1:], torch.zeros_like(sums[:, :1])], 1)
    own = own.maximum(_MIN_SHARE * at_reference[:, :1]).clamp(min=_MIN_DISTORTION)
    return own[..., None] + left[:, None] * (cumulative - at_reference[..., None])


def scores_at(scores: Tensor, lengths: Sequence[Sequence[int]], step: int) -> Tensor:
    """Return the scores `[B, g]` at some lengths."""
    columns = torch.tensor(lengths, device=scores.device) // step - 1
    return scores.gather(2, columns[..., None])[..., 0]
