"""Moving average of the weights of a run, which is what is validated and exported."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adaptok.training import sharding


@torch.no_grad()
def update_average(average: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter], decay: float) -> None:
    """Move an average towards the parameters of the same names, in place."""
    averages = [sharding.local_part(tensor) for tensor in average.values()]
    weights = [sharding.local_part(parameters[name].detach()) for name in average]
    torch._foreach_lerp_(averages, weights, 1 - decay)


def averaged_state(model: nn.Module, average: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return the weights of a model, whole and on the CPU, averaged where there is an average.

    Every process must call this function.
    """
    weights = {name: sharding.gather(tensor.detach()).cpu() for name, tensor in model.state_dict().items()}
    if average is not None:
        weights |= {name: sharding.gather(tensor).cpu() for name, tensor in average.items()}
    return weights
