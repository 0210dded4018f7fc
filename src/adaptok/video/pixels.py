"""Conversion between 8-bit frames and the float clips of the models.

Legend: `C` colour channels, `T` frames, `H` and `W` pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RANGE_TOLERANCE = 1e-3
"""Largest distance of float values from [0, 1] that is accepted: resampling overshoots."""


def to_uint8(values: Tensor) -> NDArray[np.uint8]:
    """Convert values in [0, 1] to 8 bits, rounded to the nearest. Values outside the range are clamped."""
    array: NDArray[np.uint8] = (values.float().clamp(0, 1) * 255).round().byte().cpu().numpy()
    return array


def clip_to_frames(clip: Tensor) -> NDArray[np.uint8]:
    """Convert a clip `[C, T, H, W]` in [0, 1] to frames uint8 `[T, H, W, C]`."""
    return to_uint8(clip.permute(1, 2, 3, 0))


def frames_to_clip(frames: NDArray[Any]) -> Tensor:
    """Convert frames `[T, H, W, C]`, uint8 or float in [0, 1], to a float32 clip `[C, T, H, W]` in [0, 1]."""
    values = torch.from_numpy(np.require(frames, requirements=["C", "W"])).permute(3, 0, 1, 2).float()
    return values / 255 if frames.dtype == np.uint8 else values


def check_range(values: Tensor) -> None:
    """Raise a ValueError unless all values are finite and in [0, 1], within `RANGE_TOLERANCE`."""
    if values.numel() == 0:
        return
    low, high = (float(x) for x in torch.aminmax(values))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("NaN or infinite pixel values, expected numbers in [0, 1]; check the source of the frames")
    if low < -RANGE_TOLERANCE or high > 1 + RANGE_TOLERANCE:
        fix = "divide 8-bit values by 255" if low >= 0 else "rescale [-1, 1] by (x + 1) / 2, or clamp them"
        raise ValueError(f"pixel values from {low:g} to {high:g}, expected [0, 1]; {fix}")
