"""Causal attention with dropout equals its reference."""

from __future__ import annotations

import pytest
import torch

from adaptok.ops.causal_attention import causal_attention, causal_attention_reference, dropout_mask


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("rows", [5, 300, 512])
def test_values_and_gradients_equal_the_reference(rows, dropout):
    generator = torch.Generator().manual_seed(0)
    fast = [torch.randn(2, 3, rows, 8, generator=generator, requires_grad=True) for _ in range(3)]
    plain = [x.detach().double().requires_grad_() for x in fast]
    slope = torch.randn(2, 3, rows, 8, generator=generator)
    actual = causal_attention(*fast, dropout, seed=7)
    expected = causal_attention_reference(*plain, dropout, seed=7)
    actual.backward(slope)
    expected.backward(slope.double())
    for one, other in ((actual, expected), *((a.grad, b.grad) for a, b in zip(fast, plain, strict=True))):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=1e-4)


def test_masks_follow_the_random_state_of_torch():
    q = torch.randn(1, 2, 40, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(3)
    first, second = causal_attention(q, q, q, 0.5), causal_attention(q, q, q, 0.5)
    torch.manual_seed(3)
    assert torch.equal(causal_attention(q, q, q, 0.5), first)
    assert not torch.equal(first, second)


def test_dropout_rate_and_independence():
    kept = 1 - dropout_mask(torch.Size((500, 2001)), 0.1, torch.Generator().manual_seed(0)).float()
    assert abs(kept.mean() - 0.9) < 0.002
    neighbors = kept[:, 1:] * kept[:, :-1]  # four neighbors share one random number
    assert abs(neighbors.mean() - 0.81) < 0.003
