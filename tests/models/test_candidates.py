"""Decoding a block at several lengths in one pass equals decoding the clip at each of them."""

from __future__ import annotations

import pytest
import torch

from tests.helpers.models import random_model, small_config

OPTIONS = {"plain": {}, "windows": {"encoder_window": 8, "decoder_window": 6}, "rope": {"rope": True, "width": 32}}


@pytest.mark.parametrize("name", OPTIONS)
@torch.no_grad()
def test_candidates_are_decoded_as_clips_of_their_lengths(name, clips):
    config = small_config()
    changes = dict(OPTIONS[name])
    if name == "rope":
        stack = config.tokenizer.decoder.model_copy(update=changes)
        changes = {"encoder": stack, "decoder": stack}
    tokenizer = random_model(
        config.model_copy(update={"tokenizer": config.tokenizer.model_copy(update=changes)})
    ).tokenizer
    inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clips)).codes)
    earlier, candidates = [[8, 3], [0, 5], [1, 0]], (1, 4, 8)
    decoded = tokenizer.decode_candidates(inputs[:, :3], earlier, candidates)
    for column, length in enumerate(candidates):
        expected = tokenizer.decode(inputs[:, :3], [[*clip, length] for clip in earlier])[:, :, 4:]
        torch.testing.assert_close(decoded[:, column], expected, atol=1e-4, rtol=1e-4)
