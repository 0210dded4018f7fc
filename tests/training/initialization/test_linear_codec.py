"""A linear start is a progressive codec before the first step."""

from __future__ import annotations

import pytest
import torch

from adaptok.config.tokenizer import VectorQuantizerConfig
from adaptok.training.initialization.linear_codec import initialize_linear
from tests.helpers.models import linear_tokenizer, smooth_clips


def test_more_latents_are_better_before_the_first_step():
    model, clips = linear_tokenizer(), smooth_clips(24)
    initialize_linear(model, clips)
    errors = []
    with torch.no_grad():
        inputs = model.project_codes(model.quantize(model.encode(clips)).codes)
        for length in (0, 1, 5, 16, 48):
            decoded = model.decode(inputs, [[length] * 4] * len(clips))
            errors.append((decoded - clips).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 3
    assert errors[0] == pytest.approx(clips.var().item(), rel=0.1)  # nothing kept: the mean picture


def test_what_does_not_fit_is_said():
    with pytest.raises(ValueError, match="scalar one"):
        initialize_linear(linear_tokenizer(quantizer=VectorQuantizerConfig(size=64, dim=3)), smooth_clips(2))
