"""Reconstruction losses: pixel errors, frequencies, patch borders and LPIPS.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from adaptok.config.losses import LpipsLossConfig
from adaptok.config.training import TrainingConfig
from adaptok.metrics.lpips import DOWNLOAD, PUBLISHED, Lpips, Network, clip_lpips
from adaptok.ops.cache_locality import clips_at_once


class PixelErrors(torch.autograd.Function):
    """Mean absolute and mean squared error of each clip, `[B]` each.

    On a CPU, clips are processed one by one, so that each stays in the cache. Plain operations on a whole batch read
    and write it a dozen times, which takes a tenth of a small model's step.
    """

    @staticmethod
    def forward(ctx: Any, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the errors of `prediction [B, ...]` of any precision against `target [B, ...]` in float32."""
        absolute, squared = target.new_empty(len(target)), target.new_empty(len(target))
        for clips in clips_at_once(target):
            error = (prediction[clips].float() - target[clips]).flatten(1)
            squared[clips] = torch.linalg.vector_norm(error, dim=1).square() / error.shape[1]
            absolute[clips] = torch.linalg.vector_norm(error, 1, dim=1) / error.shape[1]
        ctx.save_for_backward(prediction, target)
        return absolute, squared

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        prediction, target = ctx.saved_tensors
        gradient = torch.empty_like(prediction)
        for clips in clips_at_once(target):
            error = prediction[clips].float() - target[clips]
            shape = (-1, *[1] * (error.ndim - 1))
            grad_absolute, grad_squared = (grad[clips].view(shape) / error[0].numel() for grad in grads)
            gradient[clips] = error.sign().mul_(grad_absolute).add_(error.mul_(2 * grad_squared))
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


NETWORKS: tuple[Network, Network] = ("vgg", "alex")
FLAGS = ("--lpips-weights", "--lpips-alex-weights")
"""Command line flags for the weights of NETWORKS."""


class LpipsNetworks(NamedTuple):
    """Frozen networks that measure LPIPS. None for each that a run does not use."""

    lpips: Lpips | None = None
    lpips_alex: Lpips | None = None

    @classmethod
    def load(cls, config: TrainingConfig, device: torch.device) -> LpipsNetworks:
        """Load the networks that the losses of a configuration, or the target of its scorer, need.

        Raises:
            ValueError: weights are needed but not given, or are not the published ones.
            FileNotFoundError: there is no such file.
        """
        if (message := missing_weights(config)) is not None:
            raise ValueError(message)
        vgg, alex = (
            Lpips.from_file(path, network).to(device) if path is not None and message is not None else None
            for network, path, message in zip(NETWORKS, _weight_files(config), _requirements(config), strict=True)
        )
        return cls(vgg, alex)


def missing_weights(config: TrainingConfig) -> str | None:
    """Return which LPIPS weights a configuration needs but does not name, with the remedy, or None."""
    needed = zip(_requirements(config), _weight_files(config), strict=True)
    return next((message for message, path in needed if message is not None and path is None), None)


def _weight_files(config: TrainingConfig) -> tuple[str | None, str | None]:
    return config.lpips_weights, config.lpips_alex_weights


def _requirements(config: TrainingConfig) -> tuple[str | None, str | None]:
    """Return, for each network that a configuration needs, why, and the remedy if its weights are missing."""
    vgg, alex = (
        f"give {flag} {PUBLISHED[network]} (from {DOWNLOAD})" for flag, network in zip(FLAGS, NETWORKS, strict=True)
    )
    if config.stage == "scorer":
        assert config.model.scorer is not None
        message = (
            f"model.scorer.distortion lpips needs the weights of VGG16: {vgg}, or choose mse, l1, multiscale or dssim"
        )
        return (message if config.model.scorer.distortion == "lpips" else None), None
    losses = config.losses
    return (
        f"losses.lpips {losses.lpips.weight:g} needs the weights of VGG16: {vgg}, or train without it:"
        " --losses.lpips.weight 0 --losses.frequency 1"
        if losses.lpips.weight
        else None,
        f"losses.lpips_alex {losses.lpips_alex.weight:g} needs the weights of AlexNet: {alex}, or train without it:"
        " --losses.lpips-alex.weight 0"
        if losses.lpips_alex.weight
        else None,
    )


def perceptual_loss(
    lpips: Lpips, config: LpipsLossConfig, prediction: Tensor, target: Tensor, generator: torch.Generator
) -> Tensor:
    """Compute the mean LPIPS of reconstructions on random frames and crops.

    Args:
        lpips: the network.
        config: number of frames and size of the crop.
        prediction, target: `[B, 3, T, S, S]` in [0, 1].
        generator: draws frames and crops for each clip; on the CPU.
    """
    b, _, t, height, width = target.shape
    frames = min(config.frames or t, t)
    side = min(config.crop or height, height)
    predicted: list[Tensor] = []
    expected: list[Tensor] = []
    for clip in range(b):
        chosen = torch.randperm(t, generator=generator)[:frames].sort().values.to(target.device)
        top, left = (int(torch.randint(size - side + 1, (), generator=generator)) for size in (height, width))
        for source, crops in ((prediction, predicted), (target, expected)):
            square = source[clip, :, :, top : top + side, left : left + side]
            crops.append(square.index_select(1, chosen))
    return clip_lpips(lpips, torch.stack(predicted), torch.stack(expected)).mean()
