"""Fitting frames of any size to the square of the model, or to tiles of that size, and back.

Legend: `T` frames, `H` and `W` size of a video frame in pixels, `S` side of the model's square in pixels, `h` and `w`
size of the canvas in pixels, `n` tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.choices import FitChoice, FrameFit
from adaptok.video.pixels import frames_to_clip, to_uint8
from adaptok.video.tiles import Tiling, canvas_side

FITS = get_args(FrameFit)


@dataclass(frozen=True)
class Geometry:
    """How the frames of one video are fitted to the square of the model.

    The model sees frames on a canvas, which is its square, or is covered by overlapping squares (tiles).

    Args:
        fit: "crop" uses the largest square in the centre. "pad" uses the whole frame, with black bars. "stretch" uses
            the whole frame, and changes its aspect ratio. "tile" uses the whole frame, as overlapping tiles.
        width, height: Size of the video's frames, in pixels.
        size: S.
        short_side: Shorter side of the canvas of the fit "tile", in pixels, at least S. None is S.
        tile_overlap: Smallest overlap of neighbouring tiles of the fit "tile", in pixels, up to S / 2. None is S / 8.

    Raises:
        ValueError: The fit is unrecognized, or a size is out of range.
    """

    fit: FrameFit
    width: int
    height: int
    size: int
    short_side: int | None = None
    tile_overlap: int | None = None

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"fit {self.fit!r}, expected one of {', '.join(FITS)}")
        if min(self.width, self.height, self.size) < 1:
            raise ValueError(f"size {self.width}x{self.height} to {self.size}, expected at least 1 pixel")
        if self.fit != "tile":
            if (self.short_side, self.tile_overlap) != (None, None):
                raise ValueError(f"a short side or tile overlap with the fit {self.fit!r}, expected the fit 'tile'")
            return
        if self.short_side is None:
            object.__setattr__(self, "short_side", self.size)
        if self.tile_overlap is None:
            object.__setattr__(self, "tile_overlap", self.size // 8)
        if self._short_side < self.size:
            raise ValueError(f"short side {self.short_side}, expected at least {self.size} pixels, the size of a tile")
        if not 0 <= self._tile_overlap <= self.size // 2:
            raise ValueError(f"tile overlap {self.tile_overlap}, expected 0 to {self.size // 2} pixels, half of a tile")

    @classmethod
    def choose(
        cls,
        fit: FitChoice,
        width: int,
        height: int,
        size: int,
        *,
        short_side: int | None = None,
        tile_overlap: int | None = None,
    ) -> Geometry:
        """Return a geometry, where the fit "auto" stands for "tile", or for "crop" if the model sees it all that way.

        Arguments and errors are otherwise those of the class.
        """
        if fit == "auto":
            whole = width == height and short_side in (None, size) and tile_overlap is None
            if whole:
                return cls("crop", width, height, size)
            fit = "tile"
        return cls(fit, width, height, size, short_side, tile_overlap)

    @property
    def _short_side(self) -> int:
        return self.size if self.short_side is None else self.short_side

    @property
    def _tile_overlap(self) -> int:
        return self.tile_overlap or 0

    @cached_property
    def canvas(self) -> tuple[int, int]:
        """Size of the canvas in pixels: h, w. With tiles, the aspect ratio may differ a little from the frame's."""
        if self.fit != "tile":
            return self.size, self.size
        scale = self._short_side / min(self.width, self.height)
        height, width = (max(self._short_side, round(side * scale)) for side in (self.height, self.width))
        return canvas_side(height, self.size, self._tile_overlap), canvas_side(width, self.size, self._tile_overlap)

    @cached_property
    def _tiling(self) -> Tiling:
        height, width = self.canvas
        return Tiling(width, height, self.size, self._tile_overlap)

    @property
    def tiles(self) -> int:
        """n, the number of squares that cover the canvas."""
        return self._tiling.count

    @property
    def loss(self) -> float:
        """Fraction of a frame's pixels that the model does not see."""
        _, _, height, width = self.region
        return 1 - height * width / (self.height * self.width)

    @property
    def region(self) -> tuple[int, int, int, int]:
        """Region of a frame that the model sees: top, left, height, width in pixels."""
        if self.fit != "crop":
            return 0, 0, self.height, self.width
        side = min(self.width, self.height)
        return (self.height - side) // 2, (self.width - side) // 2, side, side

    @property
    def window(self) -> tuple[int, int, int, int]:
        """Position of that region on the canvas: top, left, height, width in pixels."""
        if self.fit != "pad":
            return 0, 0, *self.canvas
        scale = self.size / max(self.width, self.height)
        height, width = max(1, round(self.height * scale)), max(1, round(self.width * scale))
        return (self.size - height) // 2, (self.size - width) // 2, height, width

    def apply(self, frames: NDArray[Any]) -> Tensor:
        """Resize frames to the canvas, with antialiased bilinear interpolation.

        Args:
            frames: `[T, H, W, 3]`, uint8 or float in [0, 1].

        Returns:
            float32 `[3, T, h, w]` in [0, 1].

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
        canvas = images.new_zeros(len(images), 3, *self.canvas)
        canvas[:, :, row : row + rows, column : column + columns] = images.clamp(0, 1)
        return canvas.transpose(0, 1)

    def split(self, canvas: Tensor) -> Tensor:
        """Cut a canvas `[C, T, h, w]` into squares `[n, C, T, S, S]`."""
        return self._tiling.split(canvas)

    def merge(self, tiles: Tensor) -> Tensor:
        """Blend squares `[n, C, T, S, S]` into a canvas `[C, T, h, w]`."""
        return self._tiling.merge(tiles)

    def invert(self, clip: Tensor) -> NDArray[np.uint8]:
        """Convert a canvas `[3, T, h, w]` in [0, 1] to frames uint8 `[T, H, W, 3]`, black outside `region`."""
        row, column, rows, columns = self.window
        top, left, height, width = self.region
        frames = np.zeros((clip.shape[1], self.height, self.width, 3), np.uint8)
        for index in range(clip.shape[1]):  # one by one, as frames may be large
            image = clip[:, index, row : row + rows, column : column + columns].float()[None]
            if (height, width) != (rows, columns):
                image = F.interpolate(image, size=(height, width), mode="bicubic", antialias=True)
            frames[index, top : top + height, left : left + width] = to_uint8(image[0].permute(1, 2, 0))
        return frames
