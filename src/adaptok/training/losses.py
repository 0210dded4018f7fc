"""Reconstruction losses: pixel errors, frequencies and patch borders.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class PixelErrors(torch.autograd.Function):
    """Mean absolute and mean squared error of each clip, `[B]` each.

    Clips are processed one by one, so that each stays in the CPU cache. Plain operations on a whole batch read and
    write it a dozen times, which takes a tenth of a small model's step on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the errors of `prediction [B, ...]` of any precision against `target [B, ...]` in float32."""
        absolute, squared = target.new_empty(len(target)), target.new_empty(len(target))
        for clip, (predicted, expected) in enumerate(zip(prediction, target, strict=True)):
            error = predicted.float() - expected
            squared[clip] = torch.linalg.vector_norm(error).square() / error.numel()
            absolute[clip] = torch.linalg.vector_norm(error, 1) / error.numel()
        ctx.save_for_backward(prediction, target)
        return absolute, squared

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        prediction, target = ctx.saved_tensors
        gradient = torch.empty_like(prediction)
        for clip, (predicted, expected) in enumerate(zip(prediction, target, strict=True)):
            error = predicted.float() - expected
            grad_absolute, grad_squared = (grad[clip] / error.numel() for grad in grads)
            gradient[clip] = error.sign().mul_(grad_absolute).add_(error.mul_(2 * grad_squared))
        return gradient, None


def frequency_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the mean distance of the 2D spectra of all frames, with each frequency weighted by its magnitude.

    The amplitudes of natural images fall with the frequency; the weight gives edges as much influence as surfaces.

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
