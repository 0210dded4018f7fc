"""Square tiles that cover a frame of any size and aspect ratio.

Legend: `n` tiles, `C` channels, `T` frames, `H` and `W` size of the canvas in pixels, `S` side of a tile in pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


def canvas_side(length: int, size: int, overlap: int) -> int:
    """Return the side of a canvas that tiles cover well, near `length` pixels, at least `size`.

    If the side exceeds a tile by at most 1/32, the canvas is one tile, because a second one would add few pixels.
    Otherwise, the distance between tiles is an odd multiple of 1/16 of their size. Borders of tiles then lie in the
    middle of the 16-pixel patches of their neighbours, and not where decoded patches have faint steps of their own.
    """
    if length <= size + size // 32:
        return size
    unit, gaps = max(1, size // 16), math.ceil((length - overlap) / (size - overlap)) - 1
    multiple = 2 * round(((length - size) / gaps / unit - 1) / 2) + 1
    largest = (size - overlap) // unit
    return size + gaps * unit * max(1, min(multiple, largest - 1 + largest % 2))


def tile_count(length: int, size: int, overlap: int) -> int:
    """Return the number of tiles of `tile_starts`."""
    return 1 if length == size else math.ceil((length - overlap) / (size - overlap))


def tile_starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    """Return where the fewest tiles of `size` pixels start that cover `length` pixels, evenly spaced.

    Neighbouring tiles overlap by at least `overlap` pixels. `length` is at least `size`.
    """
    count = tile_count(length, size, overlap)
    if count == 1:
        return (0,)
    return tuple(round(i * (length - size) / (count - 1)) for i in range(count))


@dataclass(frozen=True)
class Tiling:
    """Overlapping square tiles of a canvas, row by row.

    Args:
        width, height: W and H, at least S.
        size: S.
        overlap: Smallest overlap of neighbouring tiles, in pixels, less than S.
    """

    width: int
    height: int
    size: int
    overlap: int

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """Top edges of the tiles of a column."""
        return tile_starts(self.height, self.size, self.overlap)

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """Left edges of the tiles of a row."""
        return tile_starts(self.width, self.size, self.overlap)

    @property
    def count(self) -> int:
        """n."""
        return tile_count(self.height, self.size, self.overlap) * tile_count(self.width, self.size, self.overlap)

    def split(self, canvas: Tensor) -> Tensor:
        """Cut a canvas `[C, T, H, W]` into tiles `[n, C, T, S, S]`."""
        size = self.size
        return torch.stack(
            [canvas[..., top : top + size, left : left + size] for top in self.rows for left in self.columns]
        )

    def merge(self, tiles: Tensor) -> Tensor:
        """Blend tiles `[n, C, T, S, S]` into a canvas `[C, T, H, W]`.

        Every pixel is a weighted mean of the tiles that cover it; see `blend_weights`.
        """
        if self.count == 1:
            return tiles[0]
        canvas = tiles.new_zeros(*tiles.shape[1:3], self.height, self.width)
        starts = [(top, left) for top in self.rows for left in self.columns]
        weights = [(y, x) for y in self._row_weights for x in self._column_weights]
        for tile, (top, left), (y, x) in zip(tiles, starts, weights, strict=True):
            weight = (y[:, None] * x).to(tiles)
            canvas[..., top : top + self.size, left : left + self.size] += tile * weight
        return canvas

    @cached_property
    def _row_weights(self) -> list[Tensor]:
        return blend_weights(self.rows, self.height, self.size)

    @cached_property
    def _column_weights(self) -> list[Tensor]:
        return blend_weights(self.columns, self.width, self.size)


def blend_weights(starts: tuple[int, ...], length: int, size: int) -> list[Tensor]:
    """Return the weights `[size]` of tiles that start at `starts` along an axis. At every pixel they sum to 1.

    The weight of a tile rises smoothly from 0 at its edge, so that edges leave no steps. It rises within size / 8
    pixels, also where the overlap is larger: there, tiles weigh the same, because the mean of two reconstructions has
    a smaller error than either.
    """
    total = torch.zeros(length, dtype=torch.float64)
    longest, weights = max(1, size // 8), []
    for i, start in enumerate(starts):
        weight = torch.ones(size, dtype=torch.float64)
        if i > 0:
            ramp = fade_in(min(starts[i - 1] + size - start, longest))
            weight[: len(ramp)] *= ramp
        if i + 1 < len(starts):
            ramp = fade_in(min(start + size - starts[i + 1], longest))
            weight[size - len(ramp) :] *= ramp.flip(0)
        total[start : start + size] += weight
        weights.append(weight)
    return [(w / total[start : start + size]).float() for w, start in zip(weights, starts, strict=True)]


def fade_in(length: int) -> Tensor:
    """Return weights `[length]` that rise from 0 to 1 as the square of a sine; reversed, they complement each other."""
    return torch.sin((torch.arange(length, dtype=torch.float64) + 0.5) / max(1, length) * math.pi / 2).square()
