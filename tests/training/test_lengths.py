"""Random lengths of blocks."""

from __future__ import annotations

from itertools import pairwise
from statistics import NormalDist

import pytest
import torch

from adaptok.config.lengths import (
    AllocatedLengths,
    FixedLengths,
    MixtureLengths,
    NormalLengths,
    TruncatedNormalLengths,
    UniformLengths,
)
from adaptok.training.objectives import draw_lengths


def test_lengths_keep_the_bounds_of_their_distributions():
    uniform, normal = UniformLengths(min=2, max=4), NormalLengths(mean=6, std=9, min=5, max=8)
    mixture = MixtureLengths(components=(uniform, normal, FixedLengths(length=7)), weights=(1, 1, 0))
    generator = torch.Generator().manual_seed(0)
    rows = draw_lengths(mixture, 400, 4, generator)
    low = [row for row in rows if max(row) <= 4]
    assert 150 < len(low) < 250  # a clip follows one law
    assert {length for row in low for length in row} == {2, 3, 4}
    assert {length for row in rows if row not in low for length in row} == {5, 6, 7, 8}
    assert draw_lengths(FixedLengths(length=3), 2, 4, generator) == [[3] * 4] * 2
    allocated = AllocatedLengths(patterns=((8, 2, 2, 1), (4, 3)))
    assert {tuple(row) for row in draw_lengths(allocated, 40, 4, generator)} == {(8, 2, 2, 1), (4, 3, 3, 3)}
    assert all(row[0] == 1 for row in draw_lengths(UniformLengths(min=0, max=1), 9, 4, generator))


def test_truncated_normal_lengths_have_the_probabilities_of_their_formula():
    lengths, normal = TruncatedNormalLengths(mean=6, std=3, min=2, max=9), NormalDist(6, 3)
    rows = draw_lengths(lengths, 5000, 4, torch.Generator().manual_seed(0))
    counts = torch.bincount(torch.tensor(rows).flatten(), minlength=10)
    edges = [2, *(length + 0.5 for length in range(2, 9)), 9]  # of rounding
    total = normal.cdf(9) - normal.cdf(2)
    expected = torch.tensor([(normal.cdf(b) - normal.cdf(a)) / total for a, b in pairwise(edges)])
    torch.testing.assert_close(counts[2:] / counts.sum(), expected, atol=0.01, rtol=0)
    assert counts[:2].sum() == 0
    assert any(len(set(row)) > 1 for row in rows)
    with pytest.raises(ValueError, match="is almost never between min 100 and max 200"):
        TruncatedNormalLengths(mean=0, std=5, min=100, max=200)
