"""Parameter groups: which optimizer updates which weights, at which learning rate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from adaptok.config.optimization import OptimizerConfig
from adaptok.training.optim.muon import Muon

MUON_SUFFIXES = (
    ".attn.qkv.weight",
    ".attn.proj.weight",
    ".mlp.fc1.weight",
    ".mlp.fc2.weight",
    ".mlp.gate_up.weight",
    ".mlp.down.weight",
    ".feed_forward.gate_up.weight",
    ".feed_forward.down.weight",
    ".conv1.weight",
    ".conv2.weight",
)
"""Suffixes of the matrices of transformer layers and the kernels of residual convolutions."""


def build_optimizers(
    config: OptimizerConfig, parameters: Mapping[str, nn.Parameter], linear_prefixes: tuple[str, ...] = ()
) -> dict[str, torch.optim.Optimizer]:
    """Create optimizers that together hold every parameter exactly once.

    Args:
        config: kind of optimizer, learning rates and decay. The peak learning rate of a group is its `initial_lr`.
        parameters: parameters by name.
        linear_prefixes: prefixes of the names of weights that a linear initialization set.

    Returns:
        Optimizers by the name of their checkpoint file.
    """
    matrices: list[nn.Parameter] = []
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        if config.kind == "muon" and name.endswith(MUON_SUFFIXES) and not name.startswith((*linear_prefixes, "prior.")):
            matrices.append(parameter)
            continue
        multiplier = config.prior_lr_multiplier if name.startswith("prior.") else 1.0
        multiplier = config.linear_lr_multiplier if name.startswith(linear_prefixes) else multiplier
        decay = config.weight_decay if parameter.ndim > 1 or config.decay_vectors else 0.0
        groups.setdefault((config.lr * multiplier, decay), []).append(parameter)
    assert len(matrices) + sum(map(len, groups.values())) == len(parameters)
    param_groups = [{"params": group, "initial_lr": lr, "weight_decay": decay} for (lr, decay), group in groups.items()]
    lr, decay = config.lr, config.weight_decay
    optimizers: dict[str, torch.optim.Optimizer] = {
        "optimizer": torch.optim.AdamW(param_groups, lr=lr, betas=config.betas, weight_decay=decay, fused=True)
    }
    if matrices:
        optimizers["muon"] = Muon([{"params": matrices, "initial_lr": lr}], lr=lr, weight_decay=decay)
    return optimizers
