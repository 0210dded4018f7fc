"""Muon: momentum whose steps are made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, for matrices and for the kernels of convolutions.

    torch.optim.Muon iterates in bfloat16 everywhere, which processors without instructions for it take more than
    twenty times as long for; this one computes in float32 on a CPU. A step has the root mean square that AdamW's
    usually have, so that both share a learning rate (arXiv 2502.16982).

    Args:
        params: parameters of two or more dimensions, or groups of them. All but the first dimension are one.
        lr: learning rate.
        momentum: of the moving average of the gradient.
        weight_decay: times the rate, decoupled from the gradient.

    Raises:
        ValueError: a parameter has less than two dimensions.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.ndim < 2:
                raise ValueError(f"parameter of shape {tuple(parameter.shape)}, Muon needs two dimensions or more")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change the parameters by one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                average = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
                update = parameter.grad.lerp(average, momentum).flatten(1)
                size = 0.2 * max(update.shape) ** 0.5
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.add_(orthogonalize(update).view_as(parameter), alpha=-rate * size)
        return loss


def orthogonalize(matrix: Tensor) -> Tensor:
    """Nearly the nearest matrix with orthogonal rows or columns: all singular values come to lie between 0.7 and 1.2.

    A quintic Newton-Schulz iteration, in float32 on a CPU and in bfloat16 elsewhere.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.float() if matrix.device.type == "cpu" else matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=_EPS)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)
