"""Length policies: what they refuse, and which blocks share a budget."""

from __future__ import annotations

import numpy as np
import pytest

from adaptok.allocation.knapsack import allocate, allocate_exact
from adaptok.allocation.policy import ClipLayout, LengthPolicy, check_budget, official_block_budgets

LAYOUT = ClipLayout(blocks=4, latents=8, length_step=2)


def falling_scores(blocks: int, seed: int = 0) -> np.ndarray:
    """Convex falling scores `[blocks, 4]` of blocks of random difficulty."""
    difficulty = np.random.default_rng(seed).uniform(1, 9, (blocks, 1))
    return (difficulty * np.exp(-np.arange(1, 5) / 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scope": "frame"}, "expected one of video, clip, batch, stream"),
        ({"budget": 16, "target": 0.1}, "exclude each other"),
        ({"uniform": True}, "need a budget"),
        ({"target": 0.0}, "expected a distortion above 0"),
        ({"target": float("nan")}, "expected a distortion above 0"),
        ({"target": "0.1"}, "expected a distortion above 0"),
    ],
)
def test_invalid_policies_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        LengthPolicy(**values)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("16", "'16' of type str, expected 8 to 32 tokens per clip as a number"),
        (7, "budget 7, expected 8 to 32 tokens per clip"),
        (33, "expected 8 to 32"),
        (float("nan"), "expected 8 to 32"),
        ([4, 4, 4, 4], "only valid for the scope 'batch'"),
    ],
)
def test_budgets_are_checked(budget, message):
    with pytest.raises(ValueError, match=message):
        LengthPolicy(budget).check(LAYOUT)


def test_budgets_per_block_index():
    LengthPolicy([2, 4, 6, 8], "batch").check(LAYOUT)
    for budget in ([2, 4, 6], [2, 4, 6, 9]):
        with pytest.raises(ValueError, match="expected"):
            LengthPolicy(budget, "batch").check(LAYOUT)


def test_blocks_that_share_a_budget():
    scores = falling_scores(10)
    whole = LengthPolicy(16).lengths(scores, 10, LAYOUT)
    assert np.array_equal(whole, allocate(scores, 40, length_step=2).lengths)
    clips = LengthPolicy(16, "clip").lengths(scores, 10, LAYOUT)
    assert [clips[i : i + 4].sum() for i in (0, 4, 8)] == [16, 16, 8]
    even = LengthPolicy(16, uniform=True).lengths(None, 10, LAYOUT)
    assert even.tolist() == [4] * 10
    assert LengthPolicy().lengths(None, 3, LAYOUT).tolist() == [8] * 3


def test_choosers_of_causal_policies():
    scores = falling_scores(6)
    batch = LengthPolicy(16, "batch").chooser(LAYOUT)
    assert np.array_equal(batch(scores, 2), allocate_exact(scores, 4, length_step=2).lengths)
    stream, again = LengthPolicy(16, "stream").chooser(LAYOUT), LengthPolicy(16, "stream").stream(LAYOUT)
    assert stream(scores, 0).tolist() == [again.choose(row) for row in scores]
    target = LengthPolicy(target=1.0, scope="stream").stream(LAYOUT)
    assert target.choose(np.array([3.0, 1.5, 0.9, 0.5], np.float32)) == 6
    assert target.choose(np.array([3.0, 2.5, 2.9, 2.7], np.float32)) == 4


def test_uniform_streams_never_exceed_their_budget():
    stream = LengthPolicy(13, "stream", uniform=True).stream(LAYOUT)
    lengths = np.cumsum([stream.choose(None) for _ in range(20)])
    assert (lengths <= 13 / 4 * np.arange(1, 21)).all()
    assert lengths[-1] == check_budget(13, 20, LAYOUT, uniform=True) == 65


def test_official_budgets_of_block_indices():
    """Rows of the official table, by tokens per block or per clip."""
    layout = ClipLayout(blocks=4, latents=512, length_step=64)
    assert official_block_budgets(256, layout) == official_block_budgets(1024.0, layout) == (456, 242, 172, 150)
    assert official_block_budgets(512, layout) == (512, 512, 512, 512)
    assert official_block_budgets(64, layout) == (64, 64, 64, 64)
    assert official_block_budgets(300, layout) is None
    assert official_block_budgets(256, LAYOUT) is None
