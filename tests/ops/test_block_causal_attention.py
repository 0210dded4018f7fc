"""Block-causal attention equals its dense-mask reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptok.ops.block_causal_attention import (
    Segment,
    block_causal_attention,
    block_causal_attention_reference,
    gather_runs,
)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    actual, expected = actual.detach().float(), expected.detach().float()
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-6))


def check(q, kv, segments, tolerance):
    slope = torch.randn(q.shape, generator=torch.Generator().manual_seed(1)).to(q.dtype)
    fast = [x.clone().requires_grad_() for x in (q, kv)]
    plain = [x.float().requires_grad_() for x in (q, kv)]
    actual = block_causal_attention(*fast, segments)
    expected = block_causal_attention_reference(*plain, segments)
    actual.backward(slope)
    expected.backward(slope.float())
    assert actual.dtype == q.dtype
    pairs = [(actual, expected), *((a.grad, b.grad) for a, b in zip(fast, plain, strict=True))]
    for one, other in pairs:
        assert relative_error(one, other) < tolerance


@pytest.mark.parametrize(("queries", "keys"), [(3, 1025), (1025, 1025), (300, 700), (64, 300)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_values_and_gradients_equal_the_reference(dtype, tolerance, queries, keys):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, queries, 8, 16, generator=generator).to(dtype)
    kv = torch.randn(2, keys, 2, 8, 16, generator=generator).to(dtype)
    half = keys // 2
    segments = (
        Segment(slice(0, queries // 2), (slice(0, half),)),
        Segment(slice(queries // 2, queries), (slice(0, keys // 3), slice(half, keys))),
    )
    check(q, kv, segments, tolerance)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.lists(st.booleans(), min_size=6, max_size=6).filter(any)), min_size=1))
def test_any_segments_equal_the_reference(drawn):
    """Segments of any number of queries over any runs of five keys each."""
    segments, row = [], 0
    for queries, runs in drawn:
        keys = tuple(slice(5 * i, 5 * i + 5) for i, seen in enumerate(runs) if seen)
        segments.append(Segment(slice(row, row + queries), keys))
        row += queries
    generator = torch.Generator().manual_seed(row)
    q, kv = torch.randn(1, row, 2, 4, generator=generator), torch.randn(1, 30, 2, 2, 4, generator=generator)
    check(q, kv, segments, 1e-4)


def test_runs_are_gathered_in_order():
    x = torch.arange(20).view(2, 10)
    assert gather_runs(x, [slice(6, 8), slice(1, 3)], 1).tolist() == [[6, 7, 1, 2], [16, 17, 11, 12]]
    assert gather_runs(x, [slice(3, 5)], 1).data_ptr() == x[:, 3:].data_ptr()
    assert gather_runs(x, [], 1).shape == (2, 0)
