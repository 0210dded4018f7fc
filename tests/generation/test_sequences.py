"""Sequences of blocks and end-of-block tokens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptok.generation.sequences import join_blocks, split_blocks


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=3, max_size=3).flatmap(
        lambda lengths: st.tuples(
            st.just(lengths), st.lists(st.integers(0, 9), min_size=sum(lengths), max_size=sum(lengths))
        )
    )
)
def test_sequences_round_trip(clip):
    lengths, ids = clip
    sequence = join_blocks(ids, lengths, 10)
    back, counted = split_blocks(sequence.tolist(), 3, 4, 10)
    assert counted.tolist() == lengths
    assert back[np.arange(4) < counted[:, None]].tolist() == list(ids)
    assert sequence.tolist().count(10) == 3


def test_incomplete_sequences_leave_blocks_empty():
    ids, lengths = split_blocks([3, 10, 4, 5], blocks=3, latents=4, eob=10)
    assert lengths.tolist() == [1, 2, 0]
    assert ids.tolist() == [[3, 0, 0, 0], [4, 5, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize(("sequence", "blocks"), [([1, 2, 3, 10], 1), ([1, 10, 2, 10], 1), ([1, 10, 2], 1)])
def test_sequences_that_do_not_fit_are_refused(sequence, blocks):
    with pytest.raises(ValueError, match="expected at most 1 blocks of 2 ids"):
        split_blocks(sequence, blocks, latents=2, eob=10)
