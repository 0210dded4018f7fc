"""Decoding a clip at other lengths of its blocks in one pass equals decoding it at each of them."""

from __future__ import annotations

import pytest
import torch

from adaptok.codec.length_selection import measure_block, measure_cumulative, measure_probes
from tests.helpers.models import random_model, small_config

LENGTHS = [3, 0, 8, 5]
PROBES = [[1, 3, 6], [0, 2], [4, 8], [5]]


@pytest.fixture(params=["plain", "windows", "rope"])
def tokenizer(request):
    config = small_config().tokenizer
    stack = config.decoder.model_copy(update={"rope": True, "width": 32})
    changes = {"plain": {}, "windows": {"encoder_window": 8, "decoder_window": 6}}
    changes["rope"] = {"encoder": stack, "decoder": stack}
    updated = small_config().model_copy(update={"tokenizer": config.model_copy(update=changes[request.param])})
    return random_model(updated).tokenizer


def decoder_inputs(tokenizer, clips):
    return tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clips)).codes)


@torch.no_grad()
def test_probes_are_decoded_as_clips_of_their_lengths(tokenizer, clips):
    inputs = decoder_inputs(tokenizer, clips[:1])
    probes = [(0, 1), (0, 6), (1, 2), (2, 0), (3, 8)]
    blocks = tokenizer.decode_probes(inputs[0], LENGTHS, probes)
    expected = [(0, LENGTHS), *((i, [*LENGTHS[:i], length, *LENGTHS[i + 1 :]]) for i, length in probes)]
    for first, lengths in expected:
        whole = tokenizer.decode(inputs, [lengths])[0].unflatten(1, (4, -1)).transpose(0, 1)[first:]
        torch.testing.assert_close(blocks[: 4 - first], whole, atol=1e-4, rtol=1e-4)
        blocks = blocks[4 - first :]
    assert not len(blocks)


@torch.no_grad()
def test_probes_are_measured_as_one_by_one(tokenizer, clips):
    inputs = decoder_inputs(tokenizer, clips)
    measured = measure_probes(tokenizer, clips[1], inputs[1], LENGTHS, PROBES, "multiscale")
    for block, (values, lengths) in enumerate(zip(measured, PROBES, strict=True)):
        expected = measure_cumulative(tokenizer, clips[1:2], inputs[1:2], LENGTHS, block, lengths, "multiscale")
        torch.testing.assert_close(values, expected[0], atol=1e-6, rtol=1e-4)


@torch.no_grad()
def test_measuring_a_block_leaves_its_last_length_in_the_cache(tokenizer, clips):
    inputs = decoder_inputs(tokenizer, clips)
    cache = tokenizer.decoder_cache(candidates=[2, 8])
    for block in range(3):
        frames = clips.unflatten(2, (4, -1))[:, :, block]
        arguments = tokenizer, frames, inputs[:, : block + 1], [8] * block, [2, 8], "mse"
        torch.testing.assert_close(measure_block(*arguments, cache=cache), measure_block(*arguments), rtol=1e-4, atol=0)
        for column, length in enumerate([2, 8]):
            decoded = tokenizer.decode(inputs[:, : block + 1], [[8] * block + [length]] * 3)[:, :, -frames.shape[2] :]
            error = (decoded.clamp(0, 1) - frames).square().mean((1, 2, 3, 4))
            torch.testing.assert_close(measure_block(*arguments)[:, column], error, rtol=1e-4, atol=0)
    assert cache.rows == 24
