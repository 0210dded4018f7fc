"""Comparison of functions in values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def assert_same_gradients(
    one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], x: Tensor, tolerance: dict[str, Any]
) -> None:
    """Assert that two functions of `x` have the same values, and the same gradients of their sum of squares."""
    results = []
    for function in (one, other):
        given = x.detach().clone().requires_grad_()
        out = function(given)
        out.float().square().sum().backward()
        results.append((out.detach(), given.grad))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, **tolerance)
