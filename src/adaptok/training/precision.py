"""Numbers that are not finite: the check of losses and gradients, and dynamic loss scaling for float16."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from adaptok.training.sharding import local_part

INITIAL_SCALE = 2.0**16
GROWTH_INTERVAL = 2000
"""Steps in a row without an overflow after which the scale doubles."""
MIN_SCALE = 2.0**-10
"""Scale below which a run fails: the gradient overflows whatever the scale."""


class LossScaler:
    """Dynamic loss scaling (arXiv 1710.03740, section 3.2), with the constants of `torch.amp.GradScaler`.

    The loss is multiplied by the scale before the backward pass, and the gradients are divided by it afterwards. A step
    whose gradients overflow is skipped, and halves the scale. Whether that happened is read from the norm of the
    gradients, which is the same in all processes, so that all scale alike.

    Args:
        enabled: False leaves losses and gradients as they are.

    Attributes:
        scale: current factor, a power of two.
        good_steps: steps since the last overflow or growth.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.scale = INITIAL_SCALE if enabled else 1.0
        self.good_steps = 0
        self._overflow = False

    def scaled(self, loss: Tensor) -> Tensor:
        """Return the loss to differentiate."""
        return loss * self.scale if self.enabled else loss

    @torch.no_grad()
    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients of `parameters` by the scale, in place."""
        gradients = [local_part(p.grad) for p in parameters if p.grad is not None]
        if self.enabled and gradients:
            torch._foreach_mul_(gradients, 1 / self.scale)

    def accepts(self, norm: Tensor) -> bool:
        """Return whether weights may be updated with gradients of this norm. Otherwise, their update is skipped."""
        finite = not self.enabled or math.isfinite(norm.item())
        self._overflow |= not finite
        return finite

    def update(self) -> None:
        """Adapt the scale at the end of a step.

        Raises:
            FloatingPointError: the scale became so small that the gradient itself must be infinite or not a number.
        """
        if not self.enabled:
            return
        self.good_steps = 0 if self._overflow else self.good_steps + 1
        if self._overflow:
            self.scale /= 2
        elif self.good_steps == GROWTH_INTERVAL:
            self.scale, self.good_steps = self.scale * 2, 0
        self._overflow = False
        if self.scale < MIN_SCALE:
            raise FloatingPointError(
                f"gradients overflow in float16 even with the loss multiplied by {self.scale:g}; start a new run with a"
                " lower optimizer.lr, or with --precision bfloat16"
            )

    @property
    def state(self) -> tuple[float, int] | None:
        """State to store in checkpoints, or None if disabled."""
        return (self.scale, self.good_steps) if self.enabled else None

    def load(self, state: tuple[float, int] | None) -> None:
        """Restore the state of a checkpoint, if there is one."""
        if self.enabled and state is not None:
            self.scale, self.good_steps = float(state[0]), int(state[1])


def check_finite(
    metrics: Mapping[str, Tensor], norm: Tensor, parameters: Mapping[str, nn.Parameter], step: int
) -> None:
    """Check the losses and the gradient of a step before weights are updated.

    Args:
        metrics: scalars by name, with the loss as "loss".
        norm: norm of the gradient.
        parameters: trained parameters by name, for the message.
        step: index of the step, for the message.

    Raises:
        FloatingPointError: a loss or the norm is not finite.
    """
    losses = [metrics[name] for name in ("loss", "discriminator", "lecam") if name in metrics]
    if all(torch.isfinite(value) for value in (*losses, norm)):
        return
    values = [name for name, value in metrics.items() if name != "loss" and not torch.isfinite(value)]
    gradients = [name for name, p in parameters.items() if p.grad is not None and not p.grad.isfinite().all()]
    if torch.isfinite(metrics["loss"]):
        cause = f"the gradient of step {step} is not finite (in {', '.join(gradients[:3]) or 'its norm'})"
    else:
        cause = f"the loss of step {step} is {metrics['loss'].item()} (from {', '.join(values) or 'the sum'})"
    raise FloatingPointError(cause)
