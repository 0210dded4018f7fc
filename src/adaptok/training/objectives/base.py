"""Inputs and outputs that the objectives of all stages share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

AdversarialTerm = Callable[[Tensor], Tensor]
"""Maps reconstructed clips `[B, C, T, S, S]` to a scalar adversarial loss."""


class LossOutput(NamedTuple):
    """Result of an objective."""

    loss: Tensor
    """Scalar to minimize."""
    metrics: dict[str, Tensor]
    """Detached scalars to log, by name."""
    reconstructions: Tensor | None = None
    """Detached reconstructed clips for the discriminator, where there are any."""


@dataclass(frozen=True)
class StepContext:
    """Position of a step in the run, its random numbers, and the adversarial loss while it is switched on."""

    step: int
    """Number of optimizer steps before this one."""
    progress: float
    """Fraction of the run before this step, in [0, 1)."""
    cpu_generator: torch.Generator
    """Random numbers drawn on the CPU, such as lengths and crops."""
    device_generator: torch.Generator
    """Random numbers drawn on the device of the model, such as sampled ids."""
    adversarial: AdversarialTerm | None = None

    @classmethod
    def seeded(
        cls,
        seed: int,
        device: torch.device | str = "cpu",
        step: int = 0,
        progress: float = 0.0,
        adversarial: AdversarialTerm | None = None,
    ) -> StepContext:
        """Create a context whose random numbers are a function of `seed`."""
        cpu, other = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
        return cls(step, progress, cpu, other, adversarial)


class Objective(nn.Module):
    """Module that turns a batch and a `StepContext` into a `LossOutput`."""

    def trained_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Yield the parameters that the stage trains, with their names in the model."""
        raise NotImplementedError
