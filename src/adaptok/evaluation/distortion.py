"""Distortions between clips, per block and per clip.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels, `g` blocks. Values in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from adaptok.configuration import Distortion
from adaptok.evaluation.lpips import Lpips, clip_lpips


def block_distortion(
    prediction: Tensor, target: Tensor, kind: Distortion, block_frames: int, lpips: Lpips | None = None
) -> Tensor:
    """Mean distortion of every block.

    Args:
        prediction, target: `[B, C, T, S, S]`.
        kind: "mse", "l1", "dssim" (1 - SSIM, the mean over frames) or "lpips" (the mean over frames).
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
    if kind == "dssim":
        return 1 - frame_ssim(prediction, target).view(b, t // block_frames, block_frames).mean(2)
    if kind == "lpips" and lpips is not None:
        return clip_lpips(lpips, prediction, target).view(b, t // block_frames, block_frames).mean(2)
    raise ValueError(f"distortion {kind!r} cannot be computed here, expected 'mse', 'l1' or 'dssim'")


def frame_ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004, Gaussian window of 11, sigma 1.5) of every frame: `[B, T]`."""
    b, _, t = target.shape[:3]
    first, second = (x.transpose(1, 2).flatten(0, 1).float() for x in (prediction, target))
    values = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.view(b, t)


def psnr(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB for values in [0, 1]; identical pictures are given 100 dB."""
    return -10 * torch.log10(mse.clamp(min=1e-10))
