"""Attention of all segments in one kernel, which a GPU uses, equals the dense-mask reference."""

from __future__ import annotations

import pytest
import torch

from adaptok.config.transformer import StackConfig
from adaptok.models import transformer
from adaptok.models.tokenizer_plans import decoder_plan
from adaptok.models.transformer import TransformerStack
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
    kernel = ragged_kernel(q)
    if kernel is None:
        pytest.skip(f"this GPU has no kernel for {dtype}")
    assert kernel == "efficient" or dtype == torch.bfloat16
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
    assert ragged_rows(SEGMENTS[:1], 8, device, 16) is None  # one call is enough
    assert ragged_rows(SEGMENTS, 1, device, 12) is None  # what the kernels do not support
    assert ragged_rows(SEGMENTS, 1, device, 256) is None
    everything = (slice(0, 2**20),)
    assert ragged_rows([Segment(slice(n, n + 1), everything) for n in range(2)], 1, device, 16) is None  # too much
    assert ragged_rows(SEGMENTS, 100, device, 16) is None  # and large ones keep a GPU busy
    assert ragged_rows(SEGMENTS, 1, torch.device("cpu"), 16) is None


def test_stacks_use_it(cuda, monkeypatch):
    """All layers but the last share one description of their rows."""
    calls = []
    attend = transformer.block_causal_attention
    monkeypatch.setattr(transformer, "block_causal_attention", lambda *args: calls.append(args[3]) or attend(*args))
    stack = TransformerStack(StackConfig(width=32, depth=3, heads=2)).to("cuda").eval()
    plan = decoder_plan([[3, 1, 4, 2], [1, 2, 3, 4]], patches=5)
    with torch.no_grad():
        stack(torch.randn(1, plan.segments[-1].queries.stop, 32, device="cuda"), plan)
    assert None not in calls
    assert calls[0] is calls[1] is not calls[2]
