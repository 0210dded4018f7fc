"""Weights, gradients and optimizer state split over processes (torch's fully sharded data parallel)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from adaptok.models.generator import Layer
from adaptok.models.prior import PriorBlock
from adaptok.models.transformer import TransformerBlock


def shard(objective: nn.Module, device: torch.device, processes: int) -> None:
    """Split every parameter over all processes, in place; each layer is gathered while it computes."""
    mesh = init_device_mesh(device.type, (processes,))
    for module in objective.modules():
        if isinstance(module, TransformerBlock | PriorBlock | Layer):
            fully_shard(module, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def synchronize(objective: nn.Module, on: bool) -> None:
    """Whether the next backward pass adds up gradients over processes; for a sharded objective."""
    assert isinstance(objective, FSDPModule)
    objective.set_requires_gradient_sync(on)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered where it is split; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's part, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(tensor: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, split and placed as `model` is; every process has the same one, so nothing is sent."""
    tensor = tensor.to(model.device)
    if not isinstance(model, DTensor):
        return tensor
    return distribute_tensor(tensor, model.device_mesh, model.placements, src_data_rank=None)
