"""SwiGLU (arXiv 2002.05202) that keeps only its input for the gradient.

Why: autograd keeps the activated gate as well, and concatenates the gradients of the two halves from separate buffers.
Here they are written into one.

Measured in processor time on one thread of an AMD EPYC with AVX2 (no bfloat16 instructions), torch 2.13, float32:
forward and backward of 2,400 x 2,048 take 24 ms, and the reference 21 ms. The gain is memory: 19.7 MB are kept for the
gradient, and by the reference 29.5 MB.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def swiglu(gate_up: Tensor) -> Tensor:
    """Compute silu(gate) * up for `[..., 2 h]`, the gate in the first half, to `[..., h]`."""
    out: Tensor = _SwiGlu.apply(gate_up)
    return out


def swiglu_reference(gate_up: Tensor) -> Tensor:
    """Compute the same by its formula."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


class _SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, -1)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        out = torch.empty_like(gate_up)
        (gate, up), (gate_grad, up_grad) = gate_up.chunk(2, -1), out.chunk(2, -1)
        torch.mul(grads[0], F.silu(gate), out=up_grad)
        torch.ops.aten.silu_backward.grad_input(grads[0] * up, gate, grad_input=gate_grad)
        return out
