"""A stand-in for the detector of the Fréchet video distance."""

from __future__ import annotations

import torch
from torch import nn


class Detector(nn.Module):
    """A stand-in: means of the four quarters of every colour."""

    def forward(self, clips: torch.Tensor, resize: bool = False, return_features: bool = False) -> torch.Tensor:
        assert resize
        assert return_features
        return nn.functional.adaptive_avg_pool3d(clips, (1, 2, 2)).flatten(1)
