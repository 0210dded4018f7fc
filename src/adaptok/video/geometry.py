"""Fitting frames of any size to the square of the model, and back.

Legend: `T` frames, `H` and `W` size of a video frame in pixels, `S` side of the model's square in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.choices import Fit
from adaptok.video.pixels import frames_to_clip, to_uint8

FITS = get_args(Fit)


@dataclass(frozen=True)
class Geometry:
    """How the frames of one video are fitted to the square of the model.

    Args:
        fit: "crop" uses the largest square in the centre. "pad" uses the whole frame, with black bars. "stretch" uses
            the whole frame, and changes its aspect ratio.
        width, height: Size of the video's frames, in pixels.
        size: S.

    Raises:
        ValueError: The fit is unrecognized, or a size is not positive.
    """

    fit: Fit
    width: int
    height: int
    size: int

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"fit {self.fit!r}, expected one of {', '.join(FITS)}")
        if min(self.width, self.height, self.size) < 1:
            raise ValueError(f"size {self.width}x{self.height} to {self.size}, expected at least 1 pixel")

    @property
    def region(self) -> tuple[int, int, int, int]:
        """Region of a frame that the model sees: top, left, height, width in pixels."""
        if self.fit != "crop":
            return 0, 0, self.height, self.width
        side = min(self.width, self.height)
        return (self.height - side) // 2, (self.width - side) // 2, side, side

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Position of that region in the square of the model: top, left, height, width in pixels."""
        if self.fit != "pad":
            return 0, 0, self.size, self.size
        scale = self.size / max(self.width, self.height)
        height, width = max(1, round(self.height * scale)), max(1, round(self.width * scale))
        return (self.size - height) // 2, (self.size - width) // 2, height, width

    def apply(self, frames: NDArray[Any]) -> Tensor:
        """Resize frames to the square of the model, with antialiased bilinear interpolation.

        Args:
            frames: `[T, H, W, 3]`, uint8 or float in [0, 1].

        Returns:
            float32 `[3, T, S, S]` in [0, 1].

        Raises:
            ValueError: The frames have another size.
        """
        if frames.shape[1:] != (self.height, self.width, 3):
            raise ValueError(f"frames of shape {frames.shape}, expected [T, {self.height}, {self.width}, 3]")
        top, left, height, width = self.region
        images = frames_to_clip(frames[:, top : top + height, left : left + width]).transpose(0, 1)  # [T, 3, h, w]
        row, column, rows, columns = self.window
        if (height, width) != (rows, columns):
            images = F.interpolate(images, size=(rows, columns), mode="bilinear", antialias=True)
        square = images.new_zeros(len(images), 3, self.size, self.size)
        square[:, :, row : row + rows, column : column + columns] = images.clamp(0, 1)
        return square.transpose(0, 1)

    def invert(self, clip: Tensor) -> NDArray[np.uint8]:
        """Convert a clip `[3, T, S, S]` in [0, 1] to frames uint8 `[T, H, W, 3]`, black outside `region`."""
        row, column, rows, columns = self.window
        top, left, height, width = self.region
        frames = np.zeros((clip.shape[1], self.height, self.width, 3), np.uint8)
        for index in range(clip.shape[1]):  # one by one, as frames may be large
            image = clip[:, index, row : row + rows, column : column + columns].float()[None]
            if (height, width) != (rows, columns):
                image = F.interpolate(image, size=(height, width), mode="bicubic", antialias=True)
            frames[index, top : top + height, left : left + width] = to_uint8(image[0].permute(1, 2, 0))
        return frames
