"""Initial weights, precision of the quantizer, and order of dropout and positions, as in the official program."""

from __future__ import annotations

import torch
from torch import nn

from adaptok.config.generator import GeneratorConfig
from adaptok.config.model import PriorConfig
from adaptok.config.tokenizer import VectorQuantizerConfig
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.models.quantizer import VectorQuantizer
from tests.helpers.models import small_config


def test_initial_weights():
    torch.manual_seed(0)
    model = Model(small_config(vector=True).model_copy(update={"prior": PriorConfig(width=32, depth=2, heads=2)}))
    tokenizer, scorer = model.tokenizer, model.scorer
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear) or layer is tokenizer.to_pixels:
            continue
        outputs, inputs = layer.weight.shape
        # Xavier-uniform for the tokenizer and the prior, PyTorch's default for the scorer
        limit = inputs**-0.5 if name.startswith("scorer.") else (6 / (inputs + outputs)) ** 0.5
        assert 0.9 * limit < layer.weight.abs().max() <= limit or layer.weight.numel() < 100, name
        if layer.bias is not None:
            assert bool(layer.bias.any()) == name.startswith("scorer."), name
    assert not tokenizer.to_pixels.weight.any()
    assert not tokenizer.to_pixels.bias.any()
    assert 0.9 < tokenizer.quantizer.codebook.abs().max() / (6 / 8) ** 0.5 <= 1
    assert 0.015 < tokenizer.encoder_queries.std() < 0.025
    assert scorer is not None
    generator = GeneratorModel(GeneratorConfig(width=32, depth=1, heads=2, codebook_size=60, latents=8, classes=3))
    assert not generator.output.weight.any()


def test_ids_are_chosen_in_float32_under_autocast():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(VectorQuantizerConfig(size=4096, dim=16, temperature=0.03))
    z = torch.randn(500, 16)

    def choose(sample):
        return quantizer(z, generator=torch.Generator().manual_seed(1), sample=sample).ids

    for sample in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            ids = choose(sample)
        assert torch.equal(ids, choose(sample))


def test_tokens_are_dropped_before_positions_are_added():
    sizes = {"width": 32, "depth": 1, "heads": 2, "codebook_size": 60, "latents": 8, "classes": 3}
    model = GeneratorModel(GeneratorConfig(**sizes, dropout=0.0, token_dropout=1.0)).train()
    model.layers = nn.ModuleList()
    positions = torch.arange(5)
    out = model.run(torch.randn(5, 32), [5], positions)
    torch.testing.assert_close(out, model.positions[positions])
