"""Clips and whole videos: equal forms, causality, budgets, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptok import AdapTok, TokenMismatchError


def frames_of(count: int, height: int = 20, width: int = 28, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def test_batch_of_one_equals_batch_of_many(codec, clips):
    many = codec.encode_clips(clips)
    for index in range(3):
        one = codec.encode_clips(clips[index : index + 1])
        assert torch.equal(one.ids[0], many.ids[index])
    assert codec.encode(frames_of(37), 16, batch_size=1) == codec.encode(frames_of(37), 16, batch_size=5)


def test_later_frames_change_nothing_earlier(codec, clips):
    before = codec.encode_clips(clips)
    changed = clips.clone()
    changed[:, :, 4:] = torch.rand_like(changed[:, :, 4:])
    after = codec.encode_clips(changed)
    assert torch.equal(before.ids[:, :2], after.ids[:, :2])
    assert torch.equal(codec.score_clips(before)[:, :2], codec.score_clips(after)[:, :2])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 8), min_size=4, max_size=4), min_size=3, max_size=3))
def test_truncated_equals_encoded_at_those_lengths(codec, clips, lengths):
    ids = codec.encode_clips(clips).ids
    whole = codec.decode_clips(ids, lengths)
    longest = max(max(row) for row in lengths)
    torch.testing.assert_close(codec.decode_clips(ids[:, :, :longest], lengths), whole, atol=1e-4, rtol=1e-4)
    for index in range(3):
        alone = codec.decode_clips(ids[index : index + 1], lengths[index : index + 1])
        torch.testing.assert_close(alone[0], whole[index], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scope", ["video", "clip", "batch", "stream"])
def test_scopes_keep_their_budget(codec, scope):
    tokens = codec.encode(frames_of(40), 16, scope)
    assert tokens.tokens <= 16 * 5 or scope == "stream"
    assert tokens.tokens == tokens.lengths.sum()
    assert codec.decode(tokens).shape == (40, 20, 28, 3)


def test_truncate_equals_encoding_with_that_budget(codec):
    frames = frames_of(40)
    assert codec.encode(frames).truncate(14) == codec.encode(frames, 14)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 37, 53), (2, 1, 40), (9, 16, 16)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_any_size_and_length(codec, shape, fit):
    frames = frames_of(*shape)
    assert codec.decode(codec.encode(frames, 16, fit=fit)).shape == frames.shape


@pytest.mark.parametrize("budget", [0, -4, 7, 33, float("nan"), "many", "16"])
def test_bad_budgets(codec, budget):
    with pytest.raises(ValueError, match="expected 8 to 32 tokens per clip"):
        codec.encode(frames_of(4), budget)


@pytest.mark.parametrize(
    "video",
    [
        np.zeros((4, 8, 8), np.uint8),
        np.zeros((4, 8, 8, 3), np.int64),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.full((1, 3, 4, 8, 8), 2.0, np.float32),
        np.full((1, 3, 4, 8, 8), np.nan, np.float32),
        3,
    ],
)
def test_bad_arrays(codec, video):
    with pytest.raises(ValueError, match="expected"):
        codec.encode(video)


def test_another_model_is_refused(codec):
    tokens = codec.encode(frames_of(5), 16)
    other = AdapTok(codec.model, "0" * 64)
    with pytest.raises(TokenMismatchError, match="any-model"):
        other.decode(tokens)
    assert np.array_equal(other.decode(tokens, any_model=True), codec.decode(tokens))


def test_saved_model_is_the_same(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    again = AdapTok.from_pretrained(tmp_path, device="cpu")
    assert again.encode(frames_of(6), 16) == codec.encode(frames_of(6), 16)


def test_outputs_of_decoding(codec, tmp_path):
    tokens = codec.encode(frames_of(5), 16)
    frames = codec.decode(tokens)
    assert isinstance(frames, np.ndarray)
    tensor = codec.decode(tokens, output="torch")
    assert (tensor.dtype, tensor.device.type, tuple(tensor.shape)) == (torch.uint8, "cpu", (5, 3, 20, 28))
    assert np.array_equal(tensor.permute(0, 2, 3, 1).numpy(), frames)
    tokens.save(tmp_path / "x.adaptok")
    images = codec.decode(tmp_path / "x.adaptok", output="pil", original=False)
    assert [image.size for image in images] == [(16, 16)] * 5
    assert np.array_equal(np.stack([np.asarray(image) for image in images]), codec.decode(tokens, original=False))
    with pytest.raises(ValueError, match="output 'pt', expected one of numpy, torch, pil"):
        codec.decode(tokens, output="pt")


def test_tokens_have_a_length_and_a_text(codec):
    tokens = codec.encode(frames_of(5), 16)
    assert len(tokens) == tokens.tokens == len(tokens.ids)
    low, high = tokens.lengths.min(), tokens.lengths.max()
    expected = (
        f"VideoTokens({len(tokens)} tokens of 'test', 5 frames of 28x20 at 30 fps, 3 blocks of {low} to {high} tokens"
    )
    assert repr(tokens) == f"{expected}, with scores)"
    assert repr(codec.encode(frames_of(5), keep_scores=False)).endswith("3 blocks of 8 to 8 tokens)")
