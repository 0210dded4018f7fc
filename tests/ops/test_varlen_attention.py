"""Attention within packed clips equals its reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptok.ops.varlen_attention import varlen_attention, varlen_attention_reference
from tests.helpers.gradients import assert_same_gradients

TOLERANCES = {
    torch.float32: {"atol": 2e-6, "rtol": 1e-5},
    torch.float64: {"atol": 1e-12, "rtol": 0},
    torch.bfloat16: {"atol": 0.1, "rtol": 0.1},
}


def check(lengths, dtype):
    qkv = torch.randn(sum(lengths), 3, 2, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert_same_gradients(
        lambda x: varlen_attention(x, lengths), lambda x: varlen_attention_reference(x, lengths), qkv, TOLERANCES[dtype]
    )


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("lengths", [[1], [5, 1, 300], [192, 193, 2, 500]])
def test_values_and_gradients_equal_the_reference(lengths, dtype):
    check(lengths, dtype)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=5))
def test_any_lengths_equal_the_reference(lengths):
    check(lengths, torch.float64)


def test_clips_do_not_see_each_other():
    qkv = torch.randn(9, 3, 2, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(varlen_attention(qkv, [4, 5])[4:].sum(), qkv)
    assert not gradient[:4].any()
    assert gradient[4:].any()
