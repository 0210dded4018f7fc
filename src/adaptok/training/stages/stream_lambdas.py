"""Table of λ over tokens per block, from which a live stream takes its first λ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import Scores
from adaptok.codec.codec import AdapTok
from adaptok.models.model import Model

NUM_LAMBDAS = 12
"""Values of λ that are tried."""


def measure_lambdas(model: Model, clips: Tensor, batch_size: int = 4) -> tuple[tuple[float, float], ...]:
    """Measure how many tokens a block uses on average at several λ. Lengths are chosen block after block.

    Args:
        model: model with a scorer.
        clips: `[N, C, T, S, S]` in [0, 1].
        batch_size: clips encoded at once.

    Returns:
        Pairs (tokens, λ), with rising tokens and falling λ.
    """
    codec = AdapTok(model, "")
    batches = [codec.encode_clips(batch) for batch in clips.split(batch_size)]
    lengths = np.arange(codec.length_step, model.config.tokenizer.latents + 1, codec.length_step)
    scores = [codec.score_clips(batch, normalized=False).flatten(0, 1).cpu().numpy() for batch in batches]
    savings = -np.diff(np.concatenate(scores), axis=1) / codec.length_step
    savings = savings[savings > 0]
    if not len(savings):
        return ()
    table: list[tuple[float, float]] = []
    for lmbda in np.quantile(savings, np.linspace(0.98, 0.02, NUM_LAMBDAS)).tolist():

        def choose(scores: Scores, block: int, lmbda: float = lmbda) -> NDArray[np.int64]:
            best: NDArray[np.int64] = lengths[(scores + lmbda * lengths).argmin(1)]
            return best

        tokens = float(np.concatenate([codec.choose_lengths(batch, choose)[0] for batch in batches]).mean())
        if not table or (tokens > table[-1][0] and lmbda < table[-1][1]):
            table.append((round(tokens, 2), float(f"{lmbda:.4g}")))
    return tuple(table)
