"""Prepacked linear layers equal plain ones and do not depend on the batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adaptok.ops.prepacked_linear import PrepackedLinear, prepack_linears


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(64, 96, bias=False), nn.GELU(), nn.Linear(96, 64, bias=False), nn.Linear(64, 5))
    if not prepack_linears(nn.Sequential(nn.Linear(8, 8, bias=False))):
        pytest.skip("this build of torch has no oneDNN")
    return module


@torch.no_grad()
def test_results_and_state_stay(module):
    x = torch.randn(3, 7, 64, generator=torch.Generator().manual_seed(1))
    expected, state = module(x), {name: value.clone() for name, value in module.state_dict().items()}
    assert prepack_linears(module)
    assert [type(layer) for layer in module] == [PrepackedLinear, nn.GELU, PrepackedLinear, nn.Linear]
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)
    assert state.keys() == module.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_does_not_depend_on_the_others(module, dtype):
    module = module.to(dtype)
    prepack_linears(module)
    x = torch.randn(9, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    together = module[:3](x)
    for count in (1, 2, 5):
        assert torch.equal(module[:3](x[:count]), together[:count])


def test_modules_without_such_layers_stay():
    assert not prepack_linears(nn.Sequential(nn.Linear(4, 4)))
