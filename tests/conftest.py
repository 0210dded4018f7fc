"""Small random models that every test can afford."""

from __future__ import annotations

import pytest
import torch

from adaptok.codec.codec import AdapTok
from adaptok.config.model import (
    ModelConfig,
    ScalarQuantizerConfig,
    ScorerConfig,
    StackConfig,
    TokenizerConfig,
    VectorQuantizerConfig,
)
from adaptok.models.model import Model, weights_hash


def small_config(vector: bool = False) -> ModelConfig:
    """4 blocks of 2 frames, 16 patches and 8 latents; the scorer has probe lengths where the quantizer is scalar."""
    stack = StackConfig(width=32, depth=2, heads=2)
    quantizer = VectorQuantizerConfig(size=64, dim=8) if vector else ScalarQuantizerConfig(levels=(5, 4, 4))
    return ModelConfig(
        name="test",
        tokenizer=TokenizerConfig(
            frames=8,
            size=16,
            patch_size=4,
            temporal_patch_size=2,
            latents=8,
            encoder=stack,
            decoder=stack,
            quantizer=quantizer,
        ),
        scorer=ScorerConfig(
            width=32,
            depth=2,
            heads=2,
            length_step=2,
            distortion="mse" if vector else "multiscale",
            scale="log",
            mean=-3.0,
            std=1.0,
            probe_lengths=() if vector else (2, 6),
        ),
    )


@pytest.fixture(params=[False, True], ids=["scalar", "vector"])
def codec(request) -> AdapTok:
    torch.manual_seed(0)
    model = Model(small_config(request.param))
    for parameter in model.parameters():  # also those that start at zero
        torch.nn.init.normal_(parameter, std=0.3)
    return AdapTok(model, weights_hash(model.state_dict()))


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.rand(3, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
