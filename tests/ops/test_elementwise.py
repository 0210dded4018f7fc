"""SwiGLU and chunked residuals equal their references."""

from __future__ import annotations

import torch

from adaptok.ops.chunked_residual import add_residual_, add_residual_reference
from adaptok.ops.swiglu import swiglu, swiglu_reference
from tests.helpers.gradients import assert_same_gradients

EXACT = {"atol": 1e-12, "rtol": 0}


def test_swiglu():
    x = torch.randn(7, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_same_gradients(swiglu, swiglu_reference, x, EXACT)


def test_residual_in_chunks():
    x = torch.randn(3, 1500, 4, generator=torch.Generator().manual_seed(0))
    expected = add_residual_reference(x, torch.sin)
    out = add_residual_(x, torch.sin)
    assert out is x
    assert torch.equal(out, expected)
