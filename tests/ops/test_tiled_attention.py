"""Tiled attention, called directly on processors that do not select it, equals torch's kernel."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from adaptok.ops.tiled_attention import tiled_attention, tiled_attention_backward


@pytest.mark.parametrize(("queries", "keys"), [(3, 1025), (1025, 1025), (300, 700)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_values_and_gradients_equal_the_reference(dtype, tolerance, queries, keys):
    generator = torch.Generator().manual_seed(0)
    q, grad = (torch.randn(2, 8, queries, 16, generator=generator).to(dtype) for _ in range(2))
    k, v = (torch.randn(2, 8, keys, 16, generator=generator).to(dtype) for _ in range(2))
    plain = [x.float().clone().requires_grad_() for x in (q, k, v)]
    expected = F.scaled_dot_product_attention(*plain)
    gradients = torch.autograd.grad(expected, plain, grad.float())
    actual = (tiled_attention(q, k, v), *tiled_attention_backward(grad, q, k, v))
    for one, other in zip(actual, (expected, *gradients), strict=True):
        assert one.dtype == dtype
        assert (one.float() - other).norm() / other.norm() < tolerance
