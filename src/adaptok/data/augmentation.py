"""Pixel operations on training clips.

Legend: `T` frames, `H`, `W` frame size, `S` side of a clip in pixels.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from adaptok.data.decoding import Frames
from adaptok.video.pixels import frames_to_clip


def resize(frames: Frames, height: int, width: int) -> Tensor:
    """Resize frames `[T, H, W, 3]` to pixels `[3, T, height, width]` in [0, 1] (antialiased bilinear)."""
    pixels = frames_to_clip(frames).transpose(0, 1)  # [T, 3, H, W]
    if pixels.shape[2:] != (height, width):
        pixels = F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True)
    return pixels.transpose(0, 1)


def centre_crop(frames: Frames, size: int) -> Tensor:
    """Resize the short side of frames `[T, H, W, 3]` to S and crop the centre: `[3, T, S, S]` in [0, 1]."""
    height, width = frames.shape[1:3]
    short = min(height, width)
    clip = resize(frames, max(size, round(height * size / short)), max(size, round(width * size / short)))
    top, left = (clip.shape[2] - size) // 2, (clip.shape[3] - size) // 2
    return clip[:, :, top : top + size, left : left + size].clamp(0, 1)


def jitter_colours(clip: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Change the brightness, contrast and gamma of a clip in [0, 1] at random, the same for all of its frames."""
    gamma, contrast = np.exp(rng.uniform(-strength, strength, 2))
    brightness = rng.uniform(-strength, strength) / 4
    mean = clip.mean()
    return ((clip.clamp(0, 1) ** gamma - mean) * contrast + mean + brightness).clamp(0, 1)


def check_fraction(name: str, value: float) -> float:
    """Return a value in [0, 1]. Raise a ValueError if it is not."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}, expected a number from 0 to 1")
    return value
