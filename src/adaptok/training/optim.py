"""Learning rate schedules, parameter groups, and the Muon optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from adaptok.config.optimization import OptimizerConfig, RunConfig


class RunLength(NamedTuple):
    """Length of a run in steps."""

    steps: int
    """Number of optimizer steps."""
    warmup_steps: int
    """Number of these in which the learning rate rises."""


def run_length(config: RunConfig, epoch_size: int | None, processes: int = 1) -> RunLength:
    """Derive the length of a run.

    Args:
        config: configuration of the run.
        epoch_size: number of clips per epoch, if known.
        processes: number of training processes.

    Raises:
        ValueError: the length is given in epochs, and the number of clips per epoch is unknown.
    """
    optimizer = config.optimizer
    if config.max_steps is not None:
        return RunLength(config.max_steps, optimizer.warmup_steps)
    assert config.epochs is not None
    if not epoch_size:
        raise ValueError(f"epochs {config.epochs:g} needs training data from files; give max_steps instead")
    steps_per_epoch = epoch_size / config.batch_plan(processes).batch_size
    steps = max(1, math.ceil(config.epochs * steps_per_epoch))
    if optimizer.warmup_epochs is None:
        return RunLength(steps, optimizer.warmup_steps)
    return RunLength(steps, math.ceil(optimizer.warmup_epochs * steps_per_epoch))


def lr_factor(config: OptimizerConfig, step: int, length: RunLength) -> float:
    """Compute the learning rate of the step after `step` others, as a fraction of its peak."""
    start, done = config.initial_lr_ratio, step + 1
    if done <= length.warmup_steps:
        return done / length.warmup_steps if start is None else start + (1 - start) * done / length.warmup_steps
    if config.schedule == "constant":
        return 1.0
    progress = ((step if start is None else done) - length.warmup_steps) / max(1, length.steps - length.warmup_steps)
    shape = 1 - progress if config.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return config.final_lr_ratio + (1 - config.final_lr_ratio) * shape


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


def layer_weights(model: nn.Module) -> set[str]:
    """Return the names of the weights of all linear layers and convolutions of a model."""
    layers = (nn.Linear, nn.Conv2d, nn.Conv3d)
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, layers)}


def build_optimizers(
    config: OptimizerConfig,
    parameters: Mapping[str, nn.Parameter],
    linear_prefixes: tuple[str, ...] = (),
    layer_weights: Collection[str] = (),
) -> dict[str, torch.optim.Optimizer]:
    """Create optimizers that together hold every parameter exactly once.

    Args:
        config: kind of optimizer, learning rates and decay. The peak learning rate of a group is its `initial_lr`.
        parameters: parameters by name.
        linear_prefixes: prefixes of the names of weights that a linear initialization set.
        layer_weights: names of the weights of linear layers and convolutions; see `layer_weights`.

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
        decays = config.decay_vectors if parameter.ndim < 2 else config.decay_embeddings or name in layer_weights
        decay = config.weight_decay if decays else 0.0
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


_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, for matrices and convolution kernels.

    Unlike torch.optim.Muon, it orthogonalizes in float32 on CPUs: without bfloat16 instructions, bfloat16 took 0.71 s
    for a 1024 x 256 matrix on an AMD EPYC, float32 0.03 s. Updates are scaled to the root mean square of AdamW's, so
    that both optimizers share a learning rate (arXiv 2502.16982).

    Args:
        params: parameters of two or more dimensions, or groups of them. Trailing dimensions are flattened.
        lr: learning rate.
        momentum: coefficient of the moving average of the gradient.
        weight_decay: decoupled weight decay, multiplied by the learning rate.

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
        """Perform one optimization step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rate, momentum = group["lr"], group["momentum"]
            by_shape: dict[tuple[int, int], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault((parameter.shape[0], parameter[0].numel()), []).append(parameter)
            for shape, parameters in by_shape.items():
                updates = orthogonalize(
                    torch.stack([update.flatten(1) for update in self._momentum(parameters, momentum)])
                )
                size = 0.2 * max(shape) ** 0.5
                torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
                scaled = [update.view_as(p) for update, p in zip(updates, parameters, strict=True)]
                torch._foreach_add_(parameters, scaled, alpha=-rate * size)
        return loss

    def _momentum(self, parameters: list[Tensor], momentum: float) -> list[Tensor]:
        """Update the moving averages of the gradients, and return the gradients with Nesterov momentum."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        averages = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, averages, momentum))


def orthogonalize(matrices: Tensor) -> Tensor:
    """Move the singular values of matrices `[..., n, m]` close to 1, by five quintic Newton-Schulz iterations.

    The iterations run in float32 on CPUs and in bfloat16 on other devices.
    """
    a, b, c = _COEFFICIENTS
    x = matrices.float() if matrices.device.type == "cpu" else matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=_EPS)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return (x.mT if tall else x).to(matrices.dtype)
