"""Losses that are not distances of one pixel: of frequencies, of patch borders, and of an adversary.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.config.discriminator import DiscriminatorConfig
from adaptok.config.tokenizer import TokenizerConfig
from adaptok.models.discriminator import build_discriminator


class PixelErrors(torch.autograd.Function):
    """Mean absolute and mean squared error of every clip, `[B]` each, clip by clip so that a clip stays in the cache.

    Plain operations over a whole batch read and write it a dozen times: on a CPU that is a tenth of a small model's
    step.
    """

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """`prediction [B, ...]` of any precision, `target [B, ...]` float32."""
        absolute, squared = target.new_empty(len(target)), target.new_empty(len(target))
        for clip, (made, true) in enumerate(zip(prediction, target, strict=True)):
            error = made.float() - true
            squared[clip] = torch.linalg.vector_norm(error).square() / error.numel()
            absolute[clip] = torch.linalg.vector_norm(error, 1) / error.numel()
        ctx.save_for_backward(prediction, target)
        return absolute, squared

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        prediction, target = ctx.saved_tensors
        gradient = torch.empty_like(prediction)
        for clip, (made, true) in enumerate(zip(prediction, target, strict=True)):
            error = made.float() - true
            of_absolute, of_squared = (grad[clip] / error.numel() for grad in grads)
            gradient[clip] = error.sign().mul_(of_absolute).add_(error.mul_(2 * of_squared))
        return gradient, None


def frequency_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean distance of the two-dimensional spectra of all frames, every frequency weighted by its distance from 0.

    Natural pictures have amplitudes that fall with the frequency; the weight makes an edge count like a surface. It
    needs no downloaded weights.

    Args:
        prediction, target: `[B, C, T, S, S]` in [0, 1].
    """
    size = target.shape[-1]
    rows = torch.fft.fftfreq(size, device=target.device)
    columns = torch.fft.rfftfreq(size, device=target.device)
    weight = (rows[:, None].square() + columns.square()).sqrt() * size
    spectrum = torch.fft.rfft2(prediction.float() - target.float(), norm="ortho")
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-8).sqrt()
    return (magnitude * weight).mean() / weight.mean()


def border_loss(prediction: Tensor, target: Tensor, patch: int) -> Tensor:
    """Compute the mean absolute error of the differences between neighbouring pixels across patch borders.

    It penalizes a visible grid of patches. Steps at patch borders are conspicuous but contribute little to L1 and L2
    losses.

    Args:
        prediction, target: `[B, C, T, S, S]` in [0, 1].
        patch: side of a patch in pixels, less than S.
    """
    error = prediction.float() - target.float()
    total, count = error.new_zeros(()), 0
    for dim in (-1, -2):
        size = error.shape[dim]
        after = error.index_select(dim, torch.arange(patch, size, patch, device=error.device))
        before = error.index_select(dim, torch.arange(patch - 1, size - 1, patch, device=error.device))
        total, count = total + (after - before).abs().sum(), count + after.numel()
    return total / count


class Adversary(nn.Module):
    """The discriminator with its own objective.

    The objective is either the non-saturating one with noisy one-sided labels, or the hinge loss (arXiv 1705.02894),
    averaged over all logits. LeCam regularisation (arXiv 2104.03310) is added to both.

    Attributes:
        real_anchor, fake_anchor: moving averages of its logits for real and reconstructed clips.
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
        """The discriminator's loss for real and made clips `[B, C, T, S, S]`, and metrics."""
        config = self.config
        logits = self.discriminator(torch.cat([real, fake.detach()]))
        seen, made = logits.chunk(2)
        if config.loss == "hinge":
            loss = F.relu(1 - seen).mean() + F.relu(1 + made).mean()
        else:
            loss = self._cross_entropy(seen, made, generator)
        lecam = F.relu(seen - self.fake_anchor).square().mean() + F.relu(self.real_anchor - made).square().mean()
        if self.training:
            with torch.no_grad():
                self.real_anchor.lerp_(_mean_over_processes(seen.mean()), 1 - config.lecam_decay)
                self.fake_anchor.lerp_(_mean_over_processes(made.mean()), 1 - config.lecam_decay)
        metrics = {"discriminator": loss.detach(), "lecam": lecam.detach()}
        metrics |= {"real_logit": seen.detach().mean(), "fake_logit": made.detach().mean()}
        return loss + config.lecam * lecam, metrics

    def _cross_entropy(self, seen: Tensor, made: Tensor, generator: torch.Generator) -> Tensor:
        """Cross-entropy with noisy one-sided labels, drawn for every logit."""
        config = self.config
        noise = torch.randn((2 * len(seen), *seen.shape[1:]), generator=generator, device=seen.device).abs()
        real_labels = (1 - config.real_noise * noise[: len(seen)]).clamp(min=config.real_min)
        fake_labels = (config.fake_noise * noise[len(seen) :]).clamp(max=config.fake_max)
        loss = F.binary_cross_entropy_with_logits(seen, real_labels)
        return loss + F.binary_cross_entropy_with_logits(made, fake_labels)

    def of_maker(self, fake: Tensor) -> Tensor:
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
