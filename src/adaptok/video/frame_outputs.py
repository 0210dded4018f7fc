"""Decoded frames as arrays, tensors or images."""

from __future__ import annotations

from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from adaptok.config.choices import FrameOutput


def check_output(output: FrameOutput) -> None:
    """Raise a ValueError if the name of an output is unrecognized."""
    if output not in get_args(FrameOutput):
        raise ValueError(f"output {output!r}, expected one of {', '.join(get_args(FrameOutput))}")


def convert_frames(frames: NDArray[np.uint8], output: FrameOutput) -> NDArray[np.uint8] | Tensor | list[Image.Image]:
    """Convert frames uint8 `[T, H, W, 3]` to a tensor uint8 `[T, 3, H, W]` ("torch"), or to images ("pil").

    Raises:
        ValueError: `output` is unrecognized.
    """
    check_output(output)
    if output == "torch":
        return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    return [Image.fromarray(frame) for frame in frames] if output == "pil" else frames
