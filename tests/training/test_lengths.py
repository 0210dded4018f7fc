"""Random lengths of blocks."""

from __future__ import annotations

import torch

from adaptok.config.lengths import FixedLengths, MixtureLengths, NormalLengths, UniformLengths
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
    assert all(row[0] == 1 for row in draw_lengths(UniformLengths(min=0, max=1), 9, 4, generator))
