"""Linear layers whose weights lie in the order that the processor reads them in, for inference on a CPU.

A step of an autoregressive model multiplies every weight with one row for each clip: it is as fast as the weights come
from memory. oneDNN reads weights that it has reordered once nearly as fast as memory gives them, plain ones two to
three times slower; and what comes out for a row does not depend on the rows beside it, so that a clip is the same in
any batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEAST_ROWS = 2
"""A single row takes another kernel, which rounds differently."""


class ReorderedLinear(nn.Module):
    """A linear layer without bias, for inference only."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.reordered: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)

    @property
    def weight(self) -> Tensor:
        """`[out, in]`, as it was."""
        return torch.Tensor.to_dense(self.reordered)

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.weight

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        short = len(rows) < _LEAST_ROWS
        given = torch.cat([rows, rows]) if short else rows
        out: Tensor = torch.ops.mkldnn._linear_pointwise(given, self.reordered, None, "none", [], "")
        return (out[: len(rows)] if short else out).view(*x.shape[:-1], -1)


def reorder_linears(module: nn.Module) -> bool:
    """Replace the linear layers without bias below `module`, on a CPU, where oneDNN is to be had; a state dictionary
    has the names of before.

    Returns:
        whether they were.
    """
    linears: list[tuple[nn.Module, str, Tensor]] = [
        (parent, name, child.get_parameter("weight").detach())
        for parent in module.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) and child.bias is None
    ]
    if not linears or linears[0][2].device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    try:
        ReorderedLinear(linears[0][2])
    except (RuntimeError, AttributeError):  # a build of torch or a processor without these kernels
        return False
    while linears:  # plain weights are let go one by one
        parent, name, weight = linears.pop()
        setattr(parent, name, ReorderedLinear(weight))
    return True
