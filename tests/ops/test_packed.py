"""Attention within packed clips, and SwiGLU: values and gradients are those of the plain forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from adaptok.config.model import GeneratorConfig
from adaptok.models.flops import generator_work
from adaptok.models.generator import GeneratorModel, packed_causal_attention
from adaptok.ops.packed_attention import PackedCausalAttention, SwiGlu


def both(one, other, x, tolerance):
    results = []
    for form in (one, other):
        given = x.detach().clone().requires_grad_()
        out = form(given)
        out.float().square().sum().backward()
        results.append((out.detach(), given.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, **tolerance)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (torch.float32, {"atol": 2e-6, "rtol": 1e-5}),
        (torch.float64, {"atol": 1e-12, "rtol": 0}),
        (torch.bfloat16, {"atol": 0.1, "rtol": 0.1}),
    ],
)
@pytest.mark.parametrize("lengths", [[1], [5, 1, 300], [192, 193, 2, 500]])
def test_attention_within_clips(lengths, dtype, tolerance):
    torch.manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, 2, 8).to(dtype)
    both(
        lambda x: PackedCausalAttention.apply(x, lengths),
        lambda x: packed_causal_attention(*x.unbind(1), lengths),
        qkv,
        tolerance,
    )


def test_swiglu():
    torch.manual_seed(0)

    def plain(x):
        gate, up = x.chunk(2, -1)
        return F.silu(gate) * up

    both(SwiGlu.apply, plain, torch.randn(7, 12, dtype=torch.float64), {"atol": 1e-12, "rtol": 0})


@pytest.mark.parametrize("levels", [(), (5, 4, 3)])
def test_work_is_what_the_products_are(levels):
    """Counted by torch, which does not know the attention of a CPU."""
    config = GeneratorConfig(width=32, depth=3, heads=2, codebook_size=60, latents=9, classes=3, levels=levels)
    model, entries = GeneratorModel(config).eval(), 13
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, entries - 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    attention = config.depth * 4 * config.width * entries * (entries + 1) / 2
    assert counter.get_total_flops() == generator_work(config, entries) - attention
