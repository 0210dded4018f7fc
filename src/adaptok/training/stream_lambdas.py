"""What a token costs: the table from which a live stream takes its first λ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import Scores
from adaptok.codec.codec import AdapTok
from adaptok.models.model import Model

_LAMBDAS = 12


def measure_lambdas(model: Model, clips: Tensor, batch: int = 4) -> tuple[tuple[float, float], ...]:
    """Mean tokens of a block at several λ, each block's length chosen given those before it.

    Args:
        model: with a scorer.
        clips: `[N, C, T, S, S]` in [0, 1], of all kinds.

    Returns:
        (tokens, λ), fewest tokens first, λ falling.
    """
    codec = AdapTok(model, "")
    parts = [codec.encode_clips(part) for part in clips.split(batch)]
    lengths = np.arange(codec.length_step, model.config.tokenizer.latents + 1, codec.length_step)
    tables = np.concatenate([codec.score_clips(part, normalized=False).flatten(0, 1).cpu().numpy() for part in parts])
    savings = -np.diff(tables, axis=1) / codec.length_step
    savings = savings[savings > 0]
    if not len(savings):
        return ()
    found: list[tuple[float, float]] = []
    for lmbda in np.quantile(savings, np.linspace(0.98, 0.02, _LAMBDAS)).tolist():

        def choose(scores: Scores, block: int, lmbda: float = lmbda) -> NDArray[np.int64]:
            best: NDArray[np.int64] = lengths[(scores + lmbda * lengths).argmin(1)]
            return best

        tokens = float(np.concatenate([codec.choose_lengths(part, choose)[0] for part in parts]).mean())
        if not found or (tokens > found[-1][0] and lmbda < found[-1][1]):
            found.append((round(tokens, 2), float(f"{lmbda:.4g}")))
    return tuple(found)
