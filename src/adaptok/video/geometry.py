"""How frames of any size fit the model's square, and back.

Legend: `T` frames, `H` and `W` of the video, `S` pixels of the model's square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.choices import Fit

FITS = get_args(Fit)


@dataclass(frozen=True)
class Geometry:
    """The way of one video's frames to the model's square.

    Args:
        fit: "crop" takes the largest square in the middle; "pad" takes all, with black bars; "stretch" takes all, and
            changes the aspect.
        width, height: of the video, in pixels.
        size: S.

    Raises:
        ValueError: the fit is unknown, or a size not positive.
    """

    fit: Fit
    width: int
    height: int
    size: int

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"fit {self.fit!r}, expected one of {', '.join(FITS)}")
        if min(self.width, self.height, self.size) < 1:
            raise ValueError(f"size {self.width}x{self.height} to {self.size}, expected 1 pixel or more")

    @property
    def region(self) -> tuple[int, int, int, int]:
        """What the model sees of a frame: top, left, height, width in pixels."""
        if self.fit != "crop":
            return 0, 0, self.height, self.width
        side = min(self.width, self.height)
        return (self.height - side) // 2, (self.width - side) // 2, side, side

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Where that lies in the model's square: top, left, height, width in pixels."""
        if self.fit != "pad":
            return 0, 0, self.size, self.size
        scale = self.size / max(self.width, self.height)
        height, width = max(1, round(self.height * scale)), max(1, round(self.width * scale))
        return (self.size - height) // 2, (self.size - width) // 2, height, width

    def apply(self, frames: NDArray[Any]) -> Tensor:
        """Frames `[T, H, W, 3]`, uint8 or float in [0, 1], to `[3, T, S, S]` float32 in [0, 1] (antialiased bilinear).

        Raises:
            ValueError: they have another size.
        """
        if frames.shape[1:] != (self.height, self.width, 3):
            raise ValueError(f"frames of shape {frames.shape}, expected [T, {self.height}, {self.width}, 3]")
        top, left, height, width = self.region
        seen = torch.from_numpy(np.ascontiguousarray(frames[:, top : top + height, left : left + width]))
        pictures = seen.permute(0, 3, 1, 2).float()
        if frames.dtype == np.uint8:
            pictures = pictures / 255
        row, column, rows, columns = self.window
        if (height, width) != (rows, columns):
            pictures = F.interpolate(pictures, size=(rows, columns), mode="bilinear", antialias=True)
        square = pictures.new_zeros(len(pictures), 3, self.size, self.size)
        square[:, :, row : row + rows, column : column + columns] = pictures.clamp(0, 1)
        return square.transpose(0, 1)

    def invert(self, clip: Tensor) -> NDArray[np.uint8]:
        """`[3, T, S, S]` in [0, 1] to frames uint8 `[T, H, W, 3]`; black where the model saw nothing."""
        row, column, rows, columns = self.window
        top, left, height, width = self.region
        frames = np.zeros((clip.shape[1], self.height, self.width, 3), np.uint8)
        for index in range(clip.shape[1]):  # one by one: the video may be much larger than the square
            picture = clip[:, index, row : row + rows, column : column + columns].float()[None]
            if (height, width) != (rows, columns):
                picture = F.interpolate(picture, size=(height, width), mode="bicubic", antialias=True)
            pixels = (picture[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            frames[index, top : top + height, left : left + width] = pixels
        return frames
