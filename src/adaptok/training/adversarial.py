"""Discriminator losses, the adversarial loss with its adaptive weight, and the optimization of the discriminator.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from adaptok.config.discriminator import DiscriminatorConfig
from adaptok.config.tokenizer import TokenizerConfig
from adaptok.models.discriminator import build_discriminator
from adaptok.training.precision import LossScaler


class AdversarialLoss(nn.Module):
    """Discriminator together with its loss and the loss of the model that it judges.

    The loss is either the non-saturating one with noisy one-sided labels, or the hinge loss (arXiv 1705.02894),
    averaged over all logits. LeCam regularization (arXiv 2104.03310) is added to both.

    Attributes:
        real_anchor, fake_anchor: moving averages of the logits of real and reconstructed clips.
    """

    real_anchor: Tensor
    fake_anchor: Tensor

    def __init__(self, config: DiscriminatorConfig, clips: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.discriminator = build_discriminator(config, clips)
        self.register_buffer("real_anchor", torch.zeros(()))
        self.register_buffer("fake_anchor", torch.zeros(()))

    def forward(self, real: Tensor, fake: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of the discriminator, and metrics.

        Args:
            real, fake: original and reconstructed clips `[B, C, T, S, S]`.
            generator: draws the noise of the labels; on the device of the clips.
        """
        config = self.config
        logits = self.discriminator(torch.cat([real, fake.detach()]))
        real_logits, fake_logits = logits.chunk(2)
        if config.loss == "hinge":
            loss = F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
        else:
            loss = self._cross_entropy(real_logits, fake_logits, generator)
        lecam = self._lecam(real_logits, fake_logits)
        metrics = {"discriminator": loss.detach(), "lecam": lecam.detach()}
        metrics |= {"real_logit": real_logits.detach().mean(), "fake_logit": fake_logits.detach().mean()}
        return loss + config.lecam * lecam, metrics

    def _lecam(self, real: Tensor, fake: Tensor) -> Tensor:
        """Compute the LeCam regularization of logits, and move the averages in training."""
        config, means = self.config, [logits.mean() for logits in (real, fake)]
        overall = [_mean_over_processes(mean) for mean in means]
        if config.lecam_of == "means":
            # The value is the mean over all processes. Each contributes the gradient of its own mean, and DDP averages.
            real, fake = (own + (all_ - own).detach() for own, all_ in zip(means, overall, strict=True))
        loss = F.relu(real - self.fake_anchor).square().mean() + F.relu(self.real_anchor - fake).square().mean()
        if self.training:
            with torch.no_grad():
                for anchor, mean in zip((self.real_anchor, self.fake_anchor), overall, strict=True):
                    anchor.lerp_(mean, 1 - config.lecam_decay)
        return loss

    def _cross_entropy(self, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
        """Compute the cross-entropy with noisy one-sided labels, drawn for each logit."""
        config = self.config
        noise = torch.randn((2 * len(real), *real.shape[1:]), generator=generator, device=real.device).abs()
        real_labels = (1 - config.real_noise * noise[: len(real)]).clamp(min=config.real_min)
        fake_labels = (config.fake_noise * noise[len(real) :]).clamp(max=config.fake_max)
        loss = F.binary_cross_entropy_with_logits(real, real_labels)
        return loss + F.binary_cross_entropy_with_logits(fake, fake_labels)

    def reconstruction_loss(self, fake: Tensor) -> Tensor:
        """Compute the adversarial loss of reconstructed clips: the cross-entropy of classifying them as real or, with
        the hinge loss, the negative mean logit. The discriminator's own weights receive no gradient."""
        self.discriminator.requires_grad_(False)
        logits = self.discriminator(fake)
        self.discriminator.requires_grad_(True)
        return -logits.mean() if self.config.loss == "hinge" else F.softplus(-logits).mean()


MAX_ADVERSARIAL_WEIGHT = 1e4
"""Largest adaptive weight, as in VQGAN."""


def adaptive_loss(
    prediction: Tensor, leaf: Tensor, others: Tensor, adversarial: Tensor, ratio: float
) -> tuple[Tensor, Tensor]:
    """Add an adversarial loss to other losses of reconstructed clips, with a weight that balances their gradients.

    The weight is `ratio` times the norm of the gradient of `others` with respect to the clips, divided by that of
    `adversarial`. It follows the balancer of EnCodec (arXiv 2210.13438, section 3.4), but without a moving average of
    the norms, so that a step does not depend on earlier ones. VQGAN (arXiv 2012.09841, eq. 7) has the same weight with
    respect to the weights of its last layer.

    Both losses are differentiated here, once each, down to the clips. The backward pass of the result begins at the
    clips, with the combined gradient.

    The norms are root mean squares over all processes. As each process averages over its own clips, the weight equals
    that of one process with all clips.

    Args:
        prediction: `[B, C, T, S, S]`, the reconstructed clips.
        leaf: the same values, detached, with requires_grad; `others` and `adversarial` were computed from it.
        others: scalar, the weighted sum of the other losses.
        adversarial: scalar, the adversarial loss without a weight.
        ratio: norm of the weighted adversarial gradient, as a multiple of that of `others`.

    Returns:
        The scalar `others + weight * adversarial` and the weight. The weight is 0 where either gradient is 0, and at
        most MAX_ADVERSARIAL_WEIGHT.
    """
    with torch.autocast(leaf.device.type, enabled=False):  # a backward pass runs without it
        first, second = (torch.autograd.grad(loss, leaf)[0].float() for loss in (others, adversarial))
    squares = torch.stack([first.square().sum(), second.square().sum()])
    reference, norm = _mean_over_processes(squares).sqrt()
    weight = (ratio * reference / norm).clamp(max=MAX_ADVERSARIAL_WEIGHT)
    weight = torch.where(norm == 0, torch.zeros_like(weight), weight)
    value = (others + weight * adversarial).detach()
    loss: Tensor = _WithGradient.apply(prediction, value, (first + weight * second).to(prediction.dtype))
    return loss, weight


class _WithGradient(torch.autograd.Function):
    """A value whose gradient with respect to `prediction` is already known."""

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad, None, None


def _mean_over_processes(values: Tensor) -> Tensor:
    mean = values.detach().clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    return mean


class DiscriminatorTrainer:
    """Discriminator loss with its optimizer.

    Args:
        loss: adversarial loss with a new discriminator.
        accelerator: moves and wraps them for the processes of the run.
        start_step: step from which the adversarial loss counts and the discriminator is trained.
        scaler: scaler of the losses. None leaves them as they are.
    """

    def __init__(
        self, loss: AdversarialLoss, accelerator: Accelerator, start_step: int, scaler: LossScaler | None = None
    ) -> None:
        self.loss, self.start_step = loss.to(accelerator.device), start_step
        self.scaler = scaler or LossScaler(enabled=False)
        config = loss.config
        self.optimizer = torch.optim.AdamW(loss.parameters(), lr=config.lr, betas=config.betas, weight_decay=0.0)
        self.prepared, self._prepared_optimizer = accelerator.prepare(self.loss, self.optimizer)
        self._backward = accelerator.backward

    def active(self, step: int) -> bool:
        """Return whether the adversarial loss counts at a step."""
        return step >= self.start_step

    def updates(self, step: int) -> bool:
        """Return whether the discriminator is updated together with the tokenizer at a step."""
        config = self.loss.config
        return self.active(step) and not config.update_first and step % config.update_interval == 0

    def updates_first(self, step: int) -> bool:
        """Return whether the discriminator is updated before the tokenizer at a step."""
        config = self.loss.config
        return self.active(step) and config.update_first and (step + 1) % config.update_interval == 0

    def scale_lr(self, factor: float) -> None:
        """Set the learning rate to a fraction of its peak, if it follows the schedule of the tokenizer."""
        if self.loss.config.follow_schedule:
            for group in self.optimizer.param_groups:
                group["lr"] = self.loss.config.lr * factor

    def update(
        self,
        objective: nn.Module,
        micro_batches: Sequence[tuple[Any, Any]],
        autocast: Callable[[], AbstractContextManager[Any]],
    ) -> dict[str, Tensor]:
        """Update the discriminator on reconstructions by the current tokenizer.

        Args:
            objective: objective of the tokenizer, as prepared for the processes of the run.
            micro_batches: clips `[B, C, T, S, S]`, each with the `StepContext` of its micro-step.
            autocast: creates the context of forward passes.

        Returns:
            Metrics, averaged over the micro-batches.

        Raises:
            FloatingPointError: the loss is not finite. The weights are unchanged.
        """
        totals: dict[str, Tensor] = {}
        for clips, context in micro_batches:
            with torch.no_grad(), autocast():
                fake = objective(clips, replace(context, reconstruct_only=True)).reconstructions
            with autocast():
                loss, metrics = self.prepared(clips, fake, context.device_generator)
            self._backward(self.scaler.scaled(loss / len(micro_batches)))
            for name, value in metrics.items():
                totals[name] = totals.get(name, 0.0) + value.float() / len(micro_batches)
        for name in ("discriminator", "lecam"):
            if not self.scaler.enabled and not torch.isfinite(totals[name]):
                raise FloatingPointError(
                    f"the loss {name!r} is {totals[name].item()}; the weights are unchanged, resume from the last"
                    " checkpoint"
                )
        self.optimizer_step()
        return totals

    def optimizer_step(self) -> None:
        """Update the discriminator from its accumulated gradients, unless they overflowed in float16."""
        if self._unscale():
            self._prepared_optimizer.step()
        self._prepared_optimizer.zero_grad()

    def _unscale(self) -> bool:
        """Undo the scaling of the gradients. Returns whether they are finite."""
        if not self.scaler.enabled:
            return True
        parameters = [p for p in self.loss.parameters() if p.grad is not None]
        self.scaler.unscale(parameters)
        return self.scaler.accepts(torch.stack([torch.linalg.vector_norm(p.grad) for p in parameters]).norm())
