"""Sharding of weights, gradients and optimizer state over processes, with PyTorch's fully sharded data parallel."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from adaptok.models.generator import Layer
from adaptok.models.prior import PriorBlock
from adaptok.models.transformer import TransformerBlock


def shard(objective: nn.Module, device: torch.device, processes: int) -> None:
    """Shard all parameters over all processes, in place. Each layer is gathered while it computes."""
    mesh = init_device_mesh(device.type, (processes,))
    for module in objective.modules():
        if isinstance(module, TransformerBlock | PriorBlock | Layer):
            fully_shard(module, mesh=mesh)
    fully_shard(objective, mesh=mesh)


def gradient_sync(accelerator: Accelerator, objective: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Create the context of a backward pass that reduces gradients over processes if it is the `last` of a step."""
    if isinstance(objective, FSDPModule):
        objective.set_requires_gradient_sync(last)
        return nullcontext()
    context: AbstractContextManager[None] = nullcontext() if last else accelerator.no_sync(objective)
    return context


def gather(tensor: Tensor) -> Tensor:
    """Return a whole tensor, gathered if it is sharded. Every process must call this function."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor. It shares its storage."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, reference: Tensor) -> Tensor:
    """Shard and place a whole tensor as `reference` is. Every process has the same one, so nothing is sent."""
    tensor = tensor.to(reference.device)
    if not isinstance(reference, DTensor):
        return tensor
    return distribute_tensor(tensor, reference.device_mesh, reference.placements, src_data_rank=None)
