"""Embedding and prediction of the ids of a scalar quantizer by their digits.

A small generator then needs no row for every id. The first digit of an id varies fastest.

Legend: `V` vocabulary (ids and the end-of-block token), `D` width, `N` rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def digit_rows(levels: Sequence[int]) -> Tensor:
    """Compute int64 `[ids, digits]`, the row of each digit of every id in a table with the rows of all digits."""
    ids = torch.arange(math.prod(levels))
    columns, start = [], 0
    for level in levels:
        columns.append(ids % level + start)
        ids, start = ids // level, start + level
    return torch.stack(columns, 1)


class DigitTable(nn.Module):
    """Base of modules with the table of digits, which is not part of the state dictionary.

    Args:
        levels: number of values of each digit.
    """

    digits: Tensor

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        self.levels, self.codebook_size = tuple(levels), math.prod(levels)
        self.register_buffer("digits", digit_rows(levels), persistent=False)

    def fill_table(self) -> None:
        """Compute the table again, for a module that was built on the device "meta"."""
        self.digits = digit_rows(self.levels)


class DigitEmbedding(DigitTable):
    """Embed an id as the sum of one row per digit, and each entry after the ids as a row of its own.

    Args:
        levels: number of values of each digit.
        extra: number of entries after the ids: the end-of-block token, and a separator.
        width: D.
    """

    def __init__(self, levels: Sequence[int], extra: int, width: int) -> None:
        super().__init__(levels)
        self.rows = nn.Embedding(sum(levels) + extra, width)

    def forward(self, ids: Tensor) -> Tensor:
        """`[...]` to `[..., D]`."""
        own = self.rows((ids - self.codebook_size).clamp(min=0) + sum(self.levels))
        rows = self.rows(self.digits[ids.clamp(max=self.codebook_size - 1)]).sum(-2)
        return torch.where((ids < self.codebook_size)[..., None], rows, own)


class DigitHead(DigitTable):
    """Predict ids as a mixture of products of independent digits, and the end-of-block token apart.

    log p(id) = log(1 - p(end)) + log sum_m w_m prod_i p_mi(digit i of the id)

    Args:
        levels: number of values of each digit.
        mixture: number of products.
        width: D.
    """

    def __init__(self, levels: Sequence[int], mixture: int, width: int) -> None:
        super().__init__(levels)
        self.mixture = mixture
        self.linear = nn.Linear(width, mixture * (sum(levels) + 1) + 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., D]` to log-probabilities `[..., V]`."""
        digits, end = self._digits(x)
        total = digits[0]
        for digit in digits[1:]:
            total = (digit[..., :, None] + total[..., None, :]).flatten(-2)
        ids = torch.logsumexp(total, -2)
        return torch.cat([ids + F.logsigmoid(-end), F.logsigmoid(end)], -1)

    def log_likelihood(self, x: Tensor, targets: Tensor) -> Tensor:
        """Compute the log-probabilities `[N]` of entries `[N]` after rows `[N, D]`, without those of all other
        entries."""
        digits, end = self._digits(x)
        rows = self.digits[targets.clamp(max=self.codebook_size - 1)]  # [N, digits]
        total: Tensor | float = 0.0
        for i, digit in enumerate(digits):
            own = (rows[:, i] - sum(self.levels[:i]))[:, None, None].expand(-1, self.mixture, 1)
            total = total + digit.gather(-1, own)[..., 0]
        assert isinstance(total, Tensor)
        ids = torch.logsumexp(total, -1) + F.logsigmoid(-end[:, 0])
        return torch.where(targets < self.codebook_size, ids, F.logsigmoid(end[:, 0]))

    def _digits(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Compute the log-probabilities `[..., mixture, levels]` of each digit, those of the first with the weights of
        the mixture, and the logit `[..., 1]` of the end-of-block token."""
        out = self.linear(x).float()
        rows = out[..., :-1].unflatten(-1, (self.mixture, -1))
        weights = rows[..., -1].log_softmax(-1)[..., None]
        digits = [digit.log_softmax(-1) for digit in rows[..., :-1].split(self.levels, -1)]
        return [digits[0] + weights, *digits[1:]], out[..., -1:]
