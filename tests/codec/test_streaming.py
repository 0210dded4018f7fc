"""Streaming sessions give what whole videos give, and refuse bad frames and ids."""

from __future__ import annotations

import numpy as np
import pytest

from adaptok import LengthPolicy


def frames_of(count: int, height: int = 20, width: int = 28, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_streaming_equals_whole(codec):
    frames = frames_of(21)
    whole = codec.encode(frames)
    stream, receiver = codec.streaming(), codec.streaming()
    blocks = [block for frame in frames for block in stream.push(frame)] + stream.flush()
    assert np.array_equal(np.concatenate([block.ids for block in blocks]), whole.ids)
    decoded = np.concatenate([receiver.decode(block) for block in blocks])
    expected = codec.decode(whole, original=False)
    assert np.abs(decoded[: len(expected)].astype(int) - expected).max() <= 1


def test_stream_scope_equals_pushing(codec):
    frames = frames_of(30)
    stream = codec.streaming(budget=16)
    blocks = [block for frame in frames for block in stream.push(frame)] + stream.flush()
    tokens = codec.encode(frames, 16, "stream")
    assert [len(block.ids) for block in blocks] == tokens.lengths.tolist()
    assert np.array_equal(np.concatenate([block.ids for block in blocks]), tokens.ids)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((4, 8), np.uint8), np.zeros((4, 8, 3), np.int64), np.full((4, 8, 3), 2.0), np.full((4, 8, 3), np.nan)],
)
def test_bad_frames_of_a_stream(codec, frames):
    with pytest.raises(ValueError, match="expected"):
        codec.streaming().push(frames)


@pytest.mark.parametrize("ids", [np.zeros(9, np.int64), np.array([10**6]), np.zeros((1, 2), np.int64)])
def test_bad_ids_of_a_stream(codec, ids):
    with pytest.raises(ValueError, match="expected at most 8 of 0 to"):
        codec.streaming().decode(ids)


def test_a_scorer_is_not_needed_for_uniform_lengths(codec):
    codec.model.scorer = None
    policy = LengthPolicy(16, "stream", uniform=True)
    assert not policy.needs_scores
    blocks = codec.streaming(16, uniform=True).push(frames_of(8))
    assert [len(block.ids) for block in blocks] == [4] * 4
    with pytest.raises(ValueError, match="has no scorer"):
        codec.streaming(16)
