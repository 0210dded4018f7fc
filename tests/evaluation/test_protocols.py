"""Protocols of evaluations."""

from __future__ import annotations

import numpy as np
import torch

from adaptok.evaluation.protocols import resize_then_crop


def test_the_official_resize():
    """torchvision's order and rounding: 320 x 240 becomes 170 x 128, cropped from column 21."""
    frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    picture = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    whole = torch.nn.functional.interpolate(picture, (128, 170), mode="bilinear", antialias=True)
    torch.testing.assert_close(resize_then_crop(frame, 128)[:, 0], whole[0, :, :, 21:149])
    small = frame[:128]
    torch.testing.assert_close(resize_then_crop(small, 128)[:, 0], picture[0, :, :128, 96:224])
