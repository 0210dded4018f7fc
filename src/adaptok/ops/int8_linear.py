"""Linear layers with weights of 8 bits, for inference on a CPU.

Why: a decode step reads every weight once, so weights of half the size are read in half the time. Processors multiply
integers of 8 bits faster than floating-point numbers, so larger batches are faster, too.

A weight is an integer from -127 to 127 times the scale of its output channel. An input row is rounded to 8,127 steps in
either direction of its largest absolute value, which is more exact than bfloat16 for all but the smallest values, and
is multiplied as two rows of 7 bits. Only the weights are rounded noticeably. Sums of integers are exact, so the result
for a row does not depend on the rows beside it, or on the kernel.

7 bits rather than 8 keep the sum of two products within 16 bits, which processors without VNNI need.

`torch.ops.aten._weight_int8pack_mm` is as fast for a single row, and slower than float32 from 16 rows on.

The reference is `int8_linear_reference`.

Measured in processor time on one thread of an Intel Xeon with AVX-512 VNNI (no bfloat16 instructions), torch 2.13: 1, 8
and 32 rows by a weight of 5,120 x 1,280 take 1.1, 1.5 and 3.3 ms. Prepacked layers take 2.9, 3.6 and 5.8 ms in float32,
and 3.7, 6.8 and 19 ms in bfloat16. If oneDNN may use AVX2 only, it takes 4.9, 6.9 and 13 ms, a quarter more than
float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.ops.prepacked_linear import PackedLinear, plain_linears

_STEPS = 8127
"""63 * 128 + 63: the largest value of two digits to the base 128 that range from -64 to 63."""
_OFFSET = 64 * 128 + 64
"""Added to a value, it makes both digits range from 0 to 127."""
_ZERO = 64
"""A digit of value 0."""
_LARGEST = 127
"""Largest absolute value of an integer weight."""
_SMALLEST = torch.finfo(torch.float32).tiny


def quantize_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight `[out, in]` to int8 `[out, in]` times float32 scales `[out]` of the output channels."""
    weight = weight.float()
    scale = weight.abs().amax(1).clamp_(min=_SMALLEST).div_(_LARGEST)
    return weight.div(scale[:, None]).round_().to(torch.int8), scale


def int8_linear_reference(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Compute the product of `x [..., in]` and the int8 weight `[out, in]` with scales `[out]`, in float32."""
    return F.linear(x.float(), weight.float() * scale[:, None]).to(x.dtype)


class Int8Linear(PackedLinear):
    """Linear layer without bias whose weights are rounded to 8 bits, for inference only.

    Args:
        weight: `[out, in]`.

    Raises:
        RuntimeError, AttributeError: this build of torch or this processor lacks the kernels.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        integers, self.scale = quantize_weight(weight)
        self.packed: Tensor = torch.ops.onednn.qlinear_prepack(integers, None)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = torch.tensor(_OFFSET + 0.5)  # so that truncation rounds to the nearest value
        self._shifts = torch.tensor([7, 0], dtype=torch.int16)[:, None, None]
        self._mask = torch.tensor(127, dtype=torch.int16)

    @property
    def weight(self) -> Tensor:
        """The rounded weight, float32 `[out, in]`."""
        integers: Tensor = torch.Tensor.to_dense(self.packed).T  # [out, in]
        return integers * self.scale[:, None]

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        raise ValueError(
            "int8 weights have lost the original ones and cannot be saved; load the model with weights='float'"
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`, in the type of x."""
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("layers with int8 weights have no gradient; load the model with weights='float'")
        rows = x.reshape(-1, x.shape[-1]).float()  # [R, in]
        largest = rows.abs().amax(1, keepdim=True)
        # a row of zeros gives any digits here, which are multiplied by 0 below
        steps = torch.addcmul(self._bias, rows, _STEPS / largest).to(torch.int16)
        digits = (steps >> self._shifts).bitwise_and_(self._mask).to(torch.uint8).flatten(0, 1)  # [2 R, in]
        y = torch.ops.onednn.qlinear_pointwise(
            digits, 1 / _STEPS, _ZERO, self.packed, self.scale, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        high, low = y.chunk(2)
        return torch.add(low, high, alpha=128).mul_(largest).to(x.dtype).view(*x.shape[:-1], y.shape[1])


def quantize_linears(module: nn.Module) -> None:
    """Replace the linear layers without bias below a module on a CPU by layers with int8 weights.

    Raises:
        ValueError: the module is on another device, or this build of torch lacks the kernels.
    """
    linears = plain_linears(module)
    if not linears:
        return
    device = linears[0][2].device
    if device.type != "cpu":
        raise ValueError(f"int8 weights on the device {device}, expected cpu; move the module there")
    try:
        Int8Linear(linears[0][2])
    except (RuntimeError, AttributeError):
        raise ValueError("int8 weights need oneDNN, which this build of torch lacks; choose float weights") from None
    while linears:  # free the plain weights one by one
        parent, name, weight = linears.pop()
        setattr(parent, name, Int8Linear(weight))
