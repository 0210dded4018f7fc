"""Use of the codebook: how many of its entries occur, and how evenly."""

from __future__ import annotations

import torch
from torch import Tensor


def count_ids(ids: Tensor, codebook_size: int) -> Tensor:
    """Count how often each entry occurs among ids, int64 `[codebook_size]`."""
    return torch.bincount(ids.flatten(), minlength=codebook_size)


def codebook_metrics(counts: Tensor) -> dict[str, Tensor]:
    """Compute the use of a codebook from the counts `[codebook_size]` of its entries.

    Returns:
        `codebook_usage`, the fraction of entries that occur, and `codebook_perplexity`, the exponential of the entropy
        of their distribution, which is the codebook size if all are equally frequent.
    """
    shares = counts.double() / counts.sum()
    entropy = -torch.special.xlogy(shares, shares).sum()
    return {"codebook_usage": (counts > 0).double().mean().float(), "codebook_perplexity": entropy.exp().float()}
