"""Adding overlapping windows equals its reference, `F.fold`."""

from __future__ import annotations

import pytest
import torch

from adaptok.ops.overlap_add import overlap_add, overlap_add_reference


@pytest.mark.parametrize("window", [4, 6, 8])
@pytest.mark.parametrize("tapered", [False, True])
def test_values_and_gradients_equal_the_reference(window, tapered):
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(2, 3, 3, 2, window, window, 3, generator=generator)
    taper = torch.rand(window, window, generator=generator) if tapered else None
    slope = torch.randn(2, 2, 12, 12, 3, generator=generator)
    results = []
    for function in (overlap_add, overlap_add_reference):
        x = windows.clone().requires_grad_()
        out = function(x, 4, taper)
        out.backward(slope)
        results.append((out.detach(), x.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
