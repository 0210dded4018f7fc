"""Losses that are not distances of one pixel: of frequencies, of patch borders, and of an adversary.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.configuration import DiscriminatorConfig, TokenizerConfig
from adaptok.models.discriminator import Discriminator


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

    It makes the grid of patches invisible: L1 and L2 losses hardly count a step at a border, which people see at once.

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
    """The discriminator with its own objective: non-saturating, noisy one-sided labels, LeCam (arXiv 2104.03310).

    Attributes:
        real_anchor, fake_anchor: moving averages of its logits for real and made clips.
    """

    real_anchor: Tensor
    fake_anchor: Tensor

    def __init__(self, config: DiscriminatorConfig, clips: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.discriminator = Discriminator(config, clips)
        self.register_buffer("real_anchor", torch.zeros(()))
        self.register_buffer("fake_anchor", torch.zeros(()))

    def forward(self, real: Tensor, fake: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The discriminator's loss for real and made clips `[B, C, T, S, S]`, and metrics."""
        config = self.config
        logits = self.discriminator(torch.cat([real, fake.detach()]))
        seen, made = logits.chunk(2)
        noise = torch.randn(logits.shape, generator=generator, device=logits.device).abs()
        real_labels = (1 - config.real_noise * noise[: len(seen)]).clamp(min=config.real_least)
        fake_labels = (config.fake_noise * noise[len(seen) :]).clamp(max=config.fake_most)
        loss = F.binary_cross_entropy_with_logits(seen, real_labels)
        loss = loss + F.binary_cross_entropy_with_logits(made, fake_labels)
        lecam = F.relu(seen - self.fake_anchor).square().mean() + F.relu(self.real_anchor - made).square().mean()
        if self.training:
            with torch.no_grad():
                self.real_anchor.lerp_(_mean_of_all(seen), 1 - config.lecam_decay)
                self.fake_anchor.lerp_(_mean_of_all(made), 1 - config.lecam_decay)
        metrics = {"discriminator": loss.detach(), "lecam": lecam.detach()}
        metrics |= {"real_logit": seen.detach().mean(), "fake_logit": made.detach().mean()}
        return loss + config.lecam * lecam, metrics

    def of_maker(self, fake: Tensor) -> Tensor:
        """What the maker of the clips wants small: the cross-entropy of taking them for real. The discriminator's own
        weights receive no gradient."""
        self.discriminator.requires_grad_(False)
        logits = self.discriminator(fake)
        self.discriminator.requires_grad_(True)
        return F.softplus(-logits).mean()


def _mean_of_all(values: Tensor) -> Tensor:
    """Mean over all processes."""
    mean = values.detach().mean()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(mean)
        mean /= dist.get_world_size()
    return mean
