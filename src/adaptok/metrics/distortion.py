"""Distortion of clips and of their blocks, and measures of visible patches and blur.

Legend: `B` clips, `C` channels, `T` frames, `H`, `W` pixels, `g` blocks. Values in [0, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptok.config.model import Distortion
from adaptok.metrics.lpips import Lpips, clip_lpips
from adaptok.metrics.similarity import frame_ssim

_HALVINGS = 3
LPIPS_BATCH_SIZE = 256
"""Frames that LPIPS processes at once in `candidate_distortion` on a GPU. VGG16 takes about 20 MB for each frame of 128
x 128 pixels."""
LPIPS_CPU_BATCH_SIZE = 8
"""The same on a CPU."""


def block_distortion(
    prediction: Tensor, target: Tensor, kind: Distortion, block_frames: int, lpips: Lpips | None = None
) -> Tensor:
    """Mean distortion of every block.

    Args:
        prediction, target: `[B, C, T, H, W]`.
        kind: "mse", "l1", "multiscale" (see `multiscale_error`), "dssim" (1 - SSIM) or "lpips". The last three are
            averaged over the frames of a block.
        block_frames: number of frames of a block; divides T.
        lpips: network that measures "lpips".

    Returns:
        `[B, g]`, differentiable.

    Raises:
        ValueError: `kind` is unknown, or is "lpips" without a network.
    """
    if kind in ("mse", "l1"):
        difference = prediction - target
        error = difference.square() if kind == "mse" else difference.abs()
        return error.unflatten(2, (-1, block_frames)).mean((1, 3, 4, 5))
    if kind == "multiscale":
        frames = multiscale_error(prediction, target)
    elif kind == "dssim":
        frames = 1 - frame_ssim(prediction, target)
    elif kind == "lpips" and lpips is not None:
        frames = clip_lpips(lpips, prediction, target)
    else:
        raise ValueError(f"distortion {kind!r}, expected 'mse', 'l1', 'multiscale', 'dssim', or 'lpips' with a network")
    return frames.unflatten(1, (-1, block_frames)).mean(2)


def candidate_distortion(candidates: Tensor, target: Tensor, kind: Distortion, lpips: Lpips | None = None) -> Tensor:
    """Mean distortion of several reconstructions of each block.

    LPIPS is computed in large batches of frames, and the features of originals only once for all candidates.

    Args:
        candidates: `[B, L, C, pt, H, W]`.
        target: `[B, C, pt, H, W]`.
        kind, lpips: as for `block_distortion`.

    Returns:
        `[B, L]`.
    """
    b, count, _, frames = candidates.shape[:4]
    if kind == "lpips" and lpips is not None:
        batch_size = LPIPS_BATCH_SIZE if candidates.device.type != "cpu" else LPIPS_CPU_BATCH_SIZE
        made = candidates.permute(0, 3, 1, 2, 4, 5).flatten(0, 1)  # [B * pt, L, C, H, W]
        return lpips.compare(made, target.transpose(1, 2).flatten(0, 1), batch_size).unflatten(0, (b, -1)).mean(1)
    repeated = target.repeat_interleave(count, 0)
    return block_distortion(candidates.flatten(0, 1), repeated, kind, frames, lpips).view(b, count)


def multiscale_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Squared error of frames at full, half, quarter and eighth resolution, averaged: `[B, T]`.

    This weights the squared error by frequency, with a weight that falls from 4 to 1: coarse errors, which viewers
    notice first, count most. H and W are multiples of 8.
    """
    b, _, t = target.shape[:3]
    error = (prediction.float() - target.float()).transpose(1, 2).flatten(0, 1)
    scales = [error.square().mean((1, 2, 3))]
    for _ in range(_HALVINGS):
        error = F.avg_pool2d(error, 2)
        scales.append(error.square().mean((1, 2, 3)))
    return torch.stack(scales).mean(0).view(b, t)


def psnr(mse: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB from the mean squared error of values in [0, 1]; 100 dB for identical frames."""
    return -10 * torch.log10(mse.clamp(min=1e-10))


def edge_ratio(clip: Tensor, patch: int) -> Tensor:
    """Measure how visible the patch grid is in clips.

    The ratio is the mean absolute difference between neighbouring pixels on opposite sides of a patch border, divided
    by that between all other neighbouring pixels, over both directions. It is about 1 if the grid is invisible.

    Args:
        clip: `[B, C, T, H, W]`.
        patch: side of a patch in pixels; the grid starts at the top left corner.

    Returns:
        `[B]`: 1 for clips of one colour, infinite for clips that change only at borders, and NaN if no neighbouring
        pixels lie on opposite sides of a border, or all of them do.
    """
    totals, counts = clip.new_zeros(2, len(clip), dtype=torch.float32), [0, 0]
    for dim in (-1, -2):
        difference = clip.float().diff(dim=dim).abs().transpose(dim, -1)
        at_border = (torch.arange(difference.shape[-1], device=clip.device) + 1) % patch == 0
        for side, chosen in enumerate((at_border, ~at_border)):
            group = difference[..., chosen]
            totals[side] += group.sum((1, 2, 3, 4))
            counts[side] += group[0].numel()
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
        `[B]`: 1 if neither clip has horizontal differences, and infinite if only the original has none.
    """
    reconstructed, original = (x.float().diff(dim=-1).abs().mean((1, 2, 3, 4)) for x in (prediction, target))
    return _ratio(reconstructed, original)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Ratio of non-negative numbers, with 0 / 0 = 1."""
    return torch.where((numerator == 0) & (denominator == 0), 1.0, numerator / denominator)
