"""Pictures out of signed distances: shapes with an edge a pixel wide, and backgrounds.

Legend: `S` pixels of a side. Lengths are in sides of the picture, y goes down; a distance is below 0 inside of a shape.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Distance = Callable[[Array, Array], Array]
"""Signed distance of points (x, y)."""


def raster(size: int) -> tuple[Array, Array]:
    """x and y of the centres of pixels, `[S, S]` each."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return x, y


def disc(x: Array, y: Array, radius: float) -> Array:
    """Distance to a disc about (0, 0)."""
    return np.hypot(x, y) - radius


def box(x: Array, y: Array, half_width: float, half_height: float, round_by: float) -> Array:
    """Distance to a rectangle about (0, 0), its corners rounded by a radius."""
    dx, dy = abs(x) - half_width + round_by, abs(y) - half_height + round_by
    return np.hypot(dx.clip(0), dy.clip(0)) + np.minimum(np.maximum(dx, dy), 0) - round_by


def triangle(x: Array, y: Array, radius: float, angle: float, round_by: float) -> Array:
    """Distance to a triangle with equal sides about (0, 0), its corners `radius` from the middle, rounded."""
    sides = [angle + 2 * math.pi * k / 3 for k in range(3)]
    inner = 0.5 * radius - round_by
    distances = [x * math.cos(side) + y * math.sin(side) - inner for side in sides]
    if round_by == 0:
        return np.maximum.reduce(distances)
    sharpness = 1.8 / round_by
    farthest: Array = np.logaddexp.reduce([sharpness * d for d in distances]) / sharpness
    return farthest - round_by


def paint(picture: Array, distance: Array, ink: Array, size: int, blur: float = 0.0) -> Array:
    """The picture `[S, S, 3]` under an ink (a colour `[3]`, or a picture) where the distance is below 0."""
    share = (0.5 - distance / max(1 / size, blur)).clip(0, 1)[..., None]
    return picture + share * (ink - picture)


def gradient(rng: np.random.Generator, hue: float, size: int) -> Array:
    """Two colours that are near each other, one into the other: `[S, S, 3]`."""
    angle = rng.uniform(0, 2 * math.pi)
    x, y = raster(size)
    share = (0.5 + ((x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle)) * 0.9).clip(0, 1)[..., None]
    first, second = colour(rng, hue, 0.38), colour(rng, hue + 0.08, 0.62)
    return first + share * (second - first)


def colour(rng: np.random.Generator, hue: float, value: float) -> Array:
    """A colour `[3]` of a hue and brightness, strong but not garish."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.5, 0.75), value))
