"""Linear layers with int8 weights equal their reference, and do not depend on the batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adaptok.ops.int8_linear import Int8Linear, int8_linear_reference, quantize_linears, quantize_weight
from adaptok.ops.prepacked_linear import iter_parameters

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(70, 96, bias=False), nn.GELU(), nn.Linear(96, 33, bias=False), nn.Linear(33, 5))


def test_weights_are_rounded_to_the_nearest_value():
    weight = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    integers, scale = quantize_weight(weight)
    assert int(integers.abs().max()) == 127
    assert bool(((integers * scale[:, None] - weight).abs() <= 0.501 * scale[:, None]).all())
    assert not integers[3].any()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(70,), (1, 70), (3, 7, 70), (0, 70)])
def test_results_are_those_of_the_rounded_weights(module, dtype, shape):
    weight = module[0].weight.detach()
    layer = Int8Linear(weight)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = int8_linear_reference(x, *quantize_weight(weight))
    y = layer(x)
    assert (y.shape, y.dtype) == (expected.shape, dtype)
    torch.testing.assert_close(y, expected, atol=1e-3 if dtype == torch.float32 else 1e-2, rtol=1e-2)
    integers, scale = quantize_weight(weight)
    torch.testing.assert_close(layer.weight, integers * scale[:, None])


@torch.no_grad()
def test_extreme_rows(module):
    """Sums at the limit do not saturate, rows of zeros stay zero, and values that are not numbers remain visible."""
    layer = Int8Linear(torch.ones(16, 5120))
    rows = torch.stack([torch.ones(5120), -torch.ones(5120), torch.zeros(5120), torch.full((5120,), torch.nan)])
    y = layer(rows)
    torch.testing.assert_close(y[:3, 0], torch.tensor([5120.0, -5120.0, 0.0]))
    assert bool(y[3].isnan().all())
    rows[0, 0] = 1e6  # one large value; the others lose their last digits only
    torch.testing.assert_close(layer(rows[:1])[0, 0], torch.tensor(1e6 + 5119), atol=5120 * 1e6 / 8127 / 2, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_does_not_depend_on_the_others(module, dtype):
    module = module.to(dtype)
    quantize_linears(module)
    x = torch.randn(40, 70, generator=torch.Generator().manual_seed(1)).to(dtype)
    together = module[:3](x)
    for count in (1, 2, 5, 17):
        assert torch.equal(module[:3](x[:count]), together[:count])


def test_layers_are_replaced(module):
    count = sum(p.numel() for p in module.parameters())
    quantize_linears(module)
    assert [type(layer) for layer in module] == [Int8Linear, nn.GELU, Int8Linear, nn.Linear]
    assert sum(p.numel() for p in iter_parameters(module)) == count
    with pytest.raises(ValueError, match=r"int8 weights .* cannot be saved; load the model with weights='float'"):
        module.state_dict()
    with pytest.raises(RuntimeError, match="no gradient; load the model with weights='float'"):
        module(torch.randn(2, 70, requires_grad=True))


def test_other_devices_are_refused():
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(8, 8, bias=False))
    with pytest.raises(ValueError, match="int8 weights on the device meta, expected cpu; move the module there"):
        quantize_linears(module)
    assert type(module[0]) is nn.Linear
