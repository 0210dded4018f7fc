"""Small random models that every test can afford."""

from __future__ import annotations

import torch

from adaptok.config.model import ModelConfig, ScorerConfig
from adaptok.config.tokenizer import ConvolutionConfig, ScalarQuantizerConfig, TokenizerConfig, VectorQuantizerConfig
from adaptok.config.transformer import StackConfig
from adaptok.models.model import Model
from adaptok.models.tokenizer import Tokenizer


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


def random_model(config: ModelConfig) -> Model:
    torch.manual_seed(0)
    model = Model(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    with torch.no_grad():  # latents that differ in all levels of the quantizer
        for norm in (m for m in model.tokenizer.modules() if isinstance(m, torch.nn.LayerNorm | torch.nn.GroupNorm)):
            norm.weight += 1
        model.tokenizer.to_code.bias.zero_()
    return model.eval()


def cumulative_model(**changes) -> Model:
    """A small model whose scorer has the target "cumulative", with weights that make lengths differ."""
    config = small_config()
    assert config.scorer is not None
    scorer = config.scorer.model_copy(update={"target": "cumulative", "probe_lengths": (), **changes})
    torch.manual_seed(3)
    model = Model(config.model_copy(update={"scorer": scorer}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def linear_tokenizer(**changes) -> Tokenizer:
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


def option_config() -> ModelConfig:
    """The small configuration of one layer with a scalar quantizer and every option of the tokenizer."""
    config = small_config()
    stack = StackConfig(width=32, depth=1, heads=2, mlp="swiglu", norm="rms", qk_norm=True, rope=True)
    convolutions = ConvolutionConfig(channels=(8,))
    changes = {
        "encoder": stack,
        "decoder": stack,
        "encoder_window": 8,
        "decoder_window": 6,
        "patch_type_embedding": False,
        "stem": convolutions,
        "head": convolutions,
    }
    return config.model_copy(update={"tokenizer": config.tokenizer.model_copy(update=changes)})
