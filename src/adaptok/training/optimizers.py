"""Which optimizer moves which weights, and at what rate."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from adaptok.config.optimization import OptimizerConfig
from adaptok.training.muon import Muon

_LAYER_MATRICES = (
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


def build_optimizers(
    settings: OptimizerConfig, parameters: Mapping[str, nn.Parameter], written: tuple[str, ...] = ()
) -> dict[str, torch.optim.Optimizer]:
    """Optimizers by name; every parameter belongs to one. The peak rate of a group is its `initial_lr`.

    Args:
        written: beginnings of the names of weights that a linear start wrote.
    """
    matrices: list[nn.Parameter] = []
    members: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        if settings.kind == "muon" and name.endswith(_LAYER_MATRICES) and not name.startswith((*written, "prior.")):
            matrices.append(parameter)
            continue
        multiplier = settings.prior_lr_multiplier if name.startswith("prior.") else 1.0
        multiplier = settings.linear_lr_multiplier if name.startswith(written) else multiplier
        decay = settings.weight_decay if parameter.ndim > 1 or settings.decay_vectors else 0.0
        members.setdefault((settings.lr * multiplier, decay), []).append(parameter)
    groups = [{"params": group, "initial_lr": rate, "weight_decay": decay} for (rate, decay), group in members.items()]
    rate, decay = settings.lr, settings.weight_decay
    optimizers: dict[str, torch.optim.Optimizer] = {
        "optimizer": torch.optim.AdamW(groups, lr=rate, betas=settings.betas, weight_decay=decay, fused=True)
    }
    if matrices:
        optimizers["muon"] = Muon([{"params": matrices, "initial_lr": rate}], lr=rate, weight_decay=decay)
    return optimizers
