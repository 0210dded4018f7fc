"""A linear start is a progressive codec before the first step."""

from __future__ import annotations

import pytest
import torch

from adaptok.config.model import ScalarQuantizerConfig, StackConfig, TokenizerConfig, VectorQuantizerConfig
from adaptok.models.tokenizer import Tokenizer
from adaptok.training.initialization.linear_start import linear_start


def tokenizer(**changes) -> Tokenizer:
    stack = StackConfig(width=192, depth=2, heads=4)
    values = {
        "size": 32,
        "patch_size": 8,
        "latents": 48,
        "encoder": stack,
        "decoder": stack,
        "quantizer": ScalarQuantizerConfig(levels=(8, 8, 8)),
        "learned_positions": True,
    }
    torch.manual_seed(0)
    return Tokenizer(TokenizerConfig(**{**values, **changes}))


def smooth_clips(count: int) -> torch.Tensor:
    noise = torch.rand(count, 3, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, size=(16, 32, 32), mode="trilinear")


def test_more_latents_are_better_before_the_first_step():
    model, clips = tokenizer(), smooth_clips(24)
    linear_start(model, clips)
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
        linear_start(tokenizer(quantizer=VectorQuantizerConfig(size=64, dim=3)), smooth_clips(2))
