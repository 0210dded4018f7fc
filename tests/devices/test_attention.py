"""Attention of all segments in one kernel, which a GPU uses, equals the dense-mask reference."""

from __future__ import annotations

import pytest
import torch

from adaptok.ops.block_causal_attention import Segment, block_causal_attention, block_causal_attention_reference
from adaptok.ops.ragged_attention import ragged_kernel, ragged_rows

SEGMENTS = (
    Segment(slice(0, 3), (slice(0, 5),)),
    Segment(slice(3, 40), (slice(0, 5), slice(9, 50))),
    Segment(slice(40, 41), (slice(7, 8),)),
    Segment(slice(41, 90), (slice(0, 60),)),
)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)])
def test_values_and_gradients_equal_the_reference(cuda, dtype, tolerance, batch):
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(batch, *shape, generator=generator) for shape in ((90, 2, 16), (60, 2, 2, 16), (90, 2, 16))]
    q, kv, slope = (x.to("cuda", dtype) for x in values)
    rows = ragged_rows(SEGMENTS, batch, q.device, 16)
    assert rows is not None
    assert ragged_kernel(q) == ("efficient" if cuda == "simulated" or dtype == torch.float32 else "flash")
    assert ragged_kernel(q.double()) is None
    fast, plain = ([x.clone().requires_grad_() for x in (q, kv)] for _ in range(2))
    actual = block_causal_attention(*fast, SEGMENTS, rows)
    expected = block_causal_attention_reference(*plain, SEGMENTS)
    actual.backward(slope)
    expected.backward(slope)
    for one, other in [(actual, expected), *((a.grad, b.grad) for a, b in zip(fast, plain, strict=True))]:
        one, other = one.detach().cpu().float(), other.detach().cpu().float()
        assert (one - other).norm() < tolerance * other.norm()


def test_what_is_left_to_calls_per_segment(cuda):
    device = torch.device("cuda")
    assert ragged_rows((*SEGMENTS, Segment(slice(90, 91), ())), 1, device, 16) is None
    assert ragged_rows(SEGMENTS[:1], 1, device, 16) is None  # one call is enough
    assert ragged_rows(SEGMENTS, 100, device, 16) is None  # and large ones keep a GPU busy
    assert ragged_rows(SEGMENTS, 1, torch.device("cpu"), 16) is None
