"""FLOPs of the generator, and its two forms of predicting digits."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from adaptok.config.generator import GeneratorConfig
from adaptok.models.digits import DigitEmbedding, DigitHead
from adaptok.models.flops import generator_flops
from adaptok.models.generator import GeneratorModel
from adaptok.models.kv_cache import DenseKVCache, build_kv_cache

LEVELS = (5, 4, 3)


def build(**changes) -> GeneratorModel:
    torch.manual_seed(0)
    sizes = {"width": 32, "depth": 3, "heads": 2, "codebook_size": 60, "latents": 9}
    model = GeneratorModel(GeneratorConfig(**{**sizes, "classes": 3, **changes})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("levels", [(), LEVELS])
def test_flops_are_those_of_the_products(levels):
    """The products are counted by torch. Whether it counts attention on a CPU depends on its version."""
    model, entries = build(levels=levels), 13
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, entries - 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    config = model.config
    attention = config.depth * 4 * config.width * entries * (entries + 1) / 2
    counted = counter.get_flop_counts()["Global"]
    products = sum(flops for operation, flops in counted.items() if "attention" not in str(operation))
    assert products == generator_flops(config, entries) - attention


@torch.no_grad()
def test_digit_head_is_a_distribution_with_consistent_forms():
    torch.manual_seed(0)
    head, x = DigitHead(LEVELS, 3, 16), torch.randn(61, 16)
    log_probabilities = head(x)
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(61))
    targets = torch.arange(61)
    torch.testing.assert_close(head.log_likelihood(x, targets), log_probabilities[targets, targets])


@torch.no_grad()
def test_digit_embedding_sums_the_rows_of_the_digits():
    embedding = DigitEmbedding(LEVELS, 2, 8)
    table = embedding.rows.weight
    id_ = 2 + 5 * (3 + 4 * 1)  # digits 2, 3 and 1, the first of them the fastest
    torch.testing.assert_close(embedding(torch.tensor(id_)), table[2] + table[5 + 3] + table[9 + 1])
    assert torch.equal(embedding(torch.tensor([60, 61])), table[12:14])


@torch.no_grad()
@pytest.mark.parametrize("condition", ["class", "frames"])
@pytest.mark.parametrize("dense", [False, True])
def test_steps_with_a_cache_equal_whole_sequences(condition, dense):
    model = build() if condition == "class" else build(classes=0, condition_ids=18, first_block=2)
    c, generator = model.config, torch.Generator().manual_seed(1)
    given = torch.tensor([0, 2]) if condition == "class" else torch.randint(0, 60, (2, 18), generator=generator)
    ids = torch.randint(0, 61, (2, 20), generator=generator)
    expected = model(ids, given)
    x = torch.cat([model.embed_condition(given), model.tokens(ids)], 1)
    build_cache = DenseKVCache if dense else build_kv_cache
    cache = build_cache(c.depth, c.heads, c.width // c.heads, 2, x.shape[1], model.positions)
    prefix = c.prefix - 1
    if prefix:
        positions = torch.arange(prefix).expand(2, -1)
        cache.place([0, 1], positions)
        model.step(x[:, :prefix], positions, cache)
    for at in range(prefix, x.shape[1]):
        positions = torch.full((2, 1), at)
        cache.place([0, 1], positions)
        logits = model.logits(model.step(x[:, at : at + 1], positions, cache))
        torch.testing.assert_close(logits, expected[:, at - prefix], atol=1e-4, rtol=1e-4)
