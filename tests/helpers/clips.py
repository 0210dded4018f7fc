"""Random clips."""

from __future__ import annotations

import torch
from torch import Tensor


def similar_clips(height: int, width: int, frames: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A noisy copy of a clip `[3, T, H, W]`, and the clip."""
    generator = torch.Generator().manual_seed(seed)
    clip = torch.rand(3, frames, height, width, generator=generator)
    return (clip + 0.3 * torch.rand(clip.shape, generator=generator)).clamp(0, 1), clip
