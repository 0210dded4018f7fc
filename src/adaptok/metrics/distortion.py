"""Distortions between clips, per block and per clip.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels, `g` blocks. Values in [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from adaptok.config.model import Distortion
from adaptok.metrics.lpips import Lpips, clip_lpips

_HALVINGS = 3
_WINDOW = 11
"""Pixels of the window of SSIM."""
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of MS-SSIM, the finest scale first."""


def block_distortion(
    prediction: Tensor, target: Tensor, kind: Distortion, block_frames: int, lpips: Lpips | None = None
) -> Tensor:
    """Mean distortion of every block.

    Args:
        prediction, target: `[B, C, T, S, S]`.
        kind: "mse", "l1", "multiscale" (squared error of frames at four sizes, see `multiscale_error`), "dssim"
            (1 - SSIM, the mean over frames) or "lpips" (the mean over frames).
        block_frames: pt; divides T.
        lpips: the network that measures "lpips".

    Returns:
        `[B, g]`, differentiable.

    Raises:
        ValueError: `kind` is of another kind, or its network is not given.
    """
    b, _, t = target.shape[:3]
    if kind in ("mse", "l1"):
        error = (prediction - target).square() if kind == "mse" else (prediction - target).abs()
        return error.unflatten(2, (t // block_frames, block_frames)).mean((1, 3, 4, 5))
    if kind == "multiscale":
        return multiscale_error(prediction, target).view(b, t // block_frames, block_frames).mean(2)
    if kind == "dssim":
        return 1 - frame_ssim(prediction, target).view(b, t // block_frames, block_frames).mean(2)
    if kind == "lpips" and lpips is not None:
        return clip_lpips(lpips, prediction, target).view(b, t // block_frames, block_frames).mean(2)
    raise ValueError(f"distortion {kind!r} cannot be computed here, expected 'mse', 'l1', 'multiscale' or 'dssim'")


def multiscale_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of frames at their size and at a half, a quarter and an eighth of it, averaged: `[B, T]`.

    A squared error whose weight falls with the frequency, from 4 to 1: coarse errors, which an eye sees first, count
    most, and fine ones are not forgotten. S is a multiple of 8.
    """
    b, _, t = target.shape[:3]
    error = (prediction.float() - target.float()).transpose(1, 2).flatten(0, 1)
    parts = [error.square().mean((1, 2, 3))]
    for _ in range(_HALVINGS):
        error = F.avg_pool2d(error, 2)
        parts.append(error.square().mean((1, 2, 3)))
    return torch.stack(parts).mean(0).view(b, t)


def frame_ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, Gaussian window of 11, sigma 1.5) of every frame: `[B, T]`."""
    b, _, t = target.shape[:3]
    first, second = (x.transpose(1, 2).flatten(0, 1).float() for x in (prediction, target))
    values = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.view(b, t)


class Similarity(NamedTuple):
    """Of every frame `[N]`: structural similarity, and that over several scales; and how many scales those are."""

    ssim: Tensor
    ms_ssim: Tensor
    scales: int


def frame_similarity(prediction: Tensor, target: Tensor) -> Similarity:
    """SSIM and MS-SSIM (Wang et al. 2003, doi:10.1109/ACSSC.2003.1292216) of frames `[N, C, H, W]` in [0, 1].

    Each scale is half of the one before. Five scales need 176 pixels; smaller frames have as many as the window of 11
    pixels fits in, and the weights of those are scaled to sum to 1. Negative factors count as 0.
    """
    scales = ssim_scales(min(target.shape[2:]))
    weights = torch.tensor(_SCALE_WEIGHTS[:scales], dtype=torch.float64)
    weights /= weights.sum()
    factors, ssim = [], None
    for scale in range(scales):
        if scale:
            prediction, target = F.avg_pool2d(prediction, 2), F.avg_pool2d(target, 2)
        whole, contrast = structural_similarity_index_measure(
            prediction, target, data_range=1.0, reduction="none", return_contrast_sensitivity=True
        )
        ssim = whole if ssim is None else ssim
        factors.append(whole if scale == scales - 1 else contrast)
    assert ssim is not None
    product = (torch.stack(factors).cpu().double().clamp(min=0) ** weights[:, None]).prod(0)
    return Similarity(ssim, product, scales)


def ssim_scales(side: int) -> int:
    """Scales of MS-SSIM for frames whose shorter side has so many pixels, 1 to 5."""
    return max(1, sum(side >> scale >= _WINDOW for scale in range(len(_SCALE_WEIGHTS))))


def psnr(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB for values in [0, 1]; identical pictures are given 100 dB."""
    return -10 * torch.log10(mse.clamp(min=1e-10))


def edge_ratio(clip: Tensor, patch: int) -> Tensor:
    """Measure how visible the grid of patches is in clips.

    The ratio is the mean absolute difference between neighbouring pixels on opposite sides of a patch border, divided
    by that between all other neighbouring pixels, over both directions. It is about 1 if the grid is invisible.

    Args:
        clip: `[B, C, T, H, W]`.
        patch: side of a patch in pixels; the grid starts at the top left corner.

    Returns:
        `[B]`, 1 for clips of one colour, infinite for clips that only change at borders, and NaN if no neighbouring
        pixels lie on opposite sides of a border, or all of them do.
    """
    totals, counts = clip.new_zeros(2, len(clip), dtype=torch.float32), [0, 0]
    for dim in (-1, -2):
        steps = clip.float().diff(dim=dim).abs().transpose(dim, -1)
        at_border = (torch.arange(steps.shape[-1], device=clip.device) + 1) % patch == 0
        for place, chosen in enumerate((at_border, ~at_border)):
            part = steps[..., chosen]
            totals[place] += part.sum((1, 2, 3, 4))
            counts[place] += part[0].numel()
    if not all(counts):
        return torch.full_like(totals[0], torch.nan)
    return _ratio(totals[0] / counts[0], totals[1] / counts[1])


def sharpness(prediction: Tensor, target: Tensor) -> Tensor:
    """Compare the sharpness of reconstructions with that of their originals.

    The ratio is the mean absolute difference between horizontally neighbouring pixels of the reconstruction, divided by
    that of the original. It is below 1 if the reconstruction is blurred and above 1 if it is noisy.

    Args:
        prediction, target: `[B, C, T, H, W]`.

    Returns:
        `[B]`, 1 if neither clip has horizontal differences, and infinite if only the original has none.
    """
    made, true = (x.float().diff(dim=-1).abs().mean((1, 2, 3, 4)) for x in (prediction, target))
    return _ratio(made, true)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Ratio of numbers that are 0 or more; 0 / 0 is 1."""
    return torch.where((numerator == 0) & (denominator == 0), 1.0, numerator / denominator)
