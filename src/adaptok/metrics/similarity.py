"""Structural similarity of frames, at one scale and at several.

Legend: `N` frames, `C` channels, `H`, `W` pixels. Values in [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5
"""Side of the Gaussian window in pixels, and its standard deviation."""
_K1, _K2 = 0.01, 0.03
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales of MS-SSIM, from fine to coarse."""


class Similarity(NamedTuple):
    """SSIM and MS-SSIM of each frame `[N]`."""

    ssim: Tensor
    ms_ssim: Tensor


def ssim_and_contrast(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Structural similarity and its contrast–structure factor (Wang et al. 2004, doi:10.1109/TIP.2003.819861).

    The window is a Gaussian. SSIM is averaged over the whole frame, which is extended by reflection; the factor is
    averaged over the pixels whose window lies inside the frame, and is NaN if there are none. Both are the numbers of
    torchmetrics, which is not needed to compute them.

    Args:
        prediction, target: frames `[N, C, H, W]` of at least 6 pixels a side.

    Returns:
        SSIM `[N]` and the factor `[N]`.
    """
    channels, border = target.shape[1], _WINDOW // 2
    distance = torch.arange(-border, border + 1, dtype=target.dtype, device=target.device)
    window = torch.exp(-((distance / _SIGMA) ** 2) / 2)
    window = window / window.sum()
    kernel = torch.outer(window, window).expand(channels, 1, _WINDOW, _WINDOW)
    a, b = (F.pad(x, (border,) * 4, mode="reflect") for x in (prediction, target))
    means = F.conv2d(torch.cat((a, b, a * a, b * b, a * b)), kernel, groups=channels)
    mean_a, mean_b, square_a, square_b, product = means.split(len(target))
    variances = (square_a - mean_a.square()).clamp(min=0) + (square_b - mean_b.square()).clamp(min=0)
    contrast = (2 * (product - mean_a * mean_b) + _K2**2) / (variances + _K2**2)
    luminance = (2 * mean_a * mean_b + _K1**2) / (mean_a.square() + mean_b.square() + _K1**2)
    inside = contrast[..., border:-border, border:-border]
    return (luminance * contrast).mean((1, 2, 3)), inside.mean((1, 2, 3))


def frame_ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of every frame of clips `[B, C, T, H, W]`: `[B, T]`."""
    first, second = (x.transpose(1, 2).flatten(0, 1).float() for x in (prediction, target))
    return ssim_and_contrast(first, second)[0].view(len(target), -1)


def frame_similarity(prediction: Tensor, target: Tensor) -> Similarity:
    """SSIM and MS-SSIM (Wang et al. 2003, doi:10.1109/ACSSC.2003.1292216) of frames `[N, C, H, W]`.

    Each scale halves the resolution of the previous one. Five scales need 176 pixels. Smaller frames use as many scales
    as the window fits in, with the exponents rescaled to sum to 1. Negative factors count as 0.
    """
    weights = torch.tensor(SCALE_WEIGHTS[: ssim_scales(min(target.shape[2:]))], dtype=torch.float64)
    weights /= weights.sum()
    scales = [ssim_and_contrast(prediction, target)]
    for _ in weights[1:]:
        prediction, target = F.avg_pool2d(prediction, 2), F.avg_pool2d(target, 2)
        scales.append(ssim_and_contrast(prediction, target))
    factors = torch.stack([*(contrast for _, contrast in scales[:-1]), scales[-1][0]])
    ms_ssim = (factors.cpu().double().clamp(min=0) ** weights[:, None]).prod(0)
    return Similarity(scales[0][0], ms_ssim)


def ssim_scales(side: int) -> int:
    """Number of scales of MS-SSIM, 1 to 5, for frames whose shorter side has `side` pixels."""
    return max(1, sum(side >> scale >= _WINDOW for scale in range(len(SCALE_WEIGHTS))))
