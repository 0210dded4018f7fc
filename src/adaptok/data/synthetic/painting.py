"""Drawing with signed distances: shapes with antialiased edges, colours and gradients.

Legend: `S` side of the picture in pixels. Coordinates and lengths are in units of that side, y points down. A signed
distance is negative inside a shape.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Distance = Callable[[Array, Array], Array]
"""Signed distance of points (x, y) to a shape."""


def pixel_centres(size: int) -> tuple[Array, Array]:
    """Return x and y of the pixel centres, `[S, S]` each."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    return x, y


def disc(x: Array, y: Array, radius: float) -> Array:
    """Signed distance to a disc centred at (0, 0)."""
    return np.hypot(x, y) - radius


def box(x: Array, y: Array, half_width: float, half_height: float, corner_radius: float) -> Array:
    """Signed distance to a rectangle with rounded corners, centred at (0, 0)."""
    dx, dy = abs(x) - half_width + corner_radius, abs(y) - half_height + corner_radius
    return np.hypot(dx.clip(0), dy.clip(0)) + np.minimum(np.maximum(dx, dy), 0) - corner_radius


def triangle(x: Array, y: Array, radius: float, angle: float, corner_radius: float) -> Array:
    """Signed distance to an equilateral triangle with rounded corners and circumradius `radius`, centred at (0, 0)."""
    sides = [angle + 2 * math.pi * k / 3 for k in range(3)]
    inner = 0.5 * radius - corner_radius
    distances = [x * math.cos(side) + y * math.sin(side) - inner for side in sides]
    if corner_radius == 0:
        return np.maximum.reduce(distances)
    sharpness = 1.8 / corner_radius
    smooth_max: Array = np.logaddexp.reduce([sharpness * d for d in distances]) / sharpness
    return smooth_max - corner_radius


def paint(picture: Array, distance: Array, ink: Array, size: int, edge_width: float = 0.0) -> Array:
    """Paint the inside of a shape.

    Args:
        picture: `[S, S, 3]`.
        distance: Signed distance of the pixels `[S, S]` to the shape.
        ink: A colour `[3]`, or a picture `[S, S, 3]`.
        size: S.
        edge_width: Width of the transition at the edge, at least one pixel.
    """
    opacity = (0.5 - distance / max(1 / size, edge_width)).clip(0, 1)[..., None]
    return picture + opacity * (ink - picture)


def gradient(rng: np.random.Generator, hue: float, size: int) -> Array:
    """Draw a linear gradient `[S, S, 3]` between two colours of similar hue, in a random direction."""
    angle = rng.uniform(0, 2 * math.pi)
    x, y = pixel_centres(size)
    position = (0.5 + ((x - 0.5) * math.cos(angle) + (y - 0.5) * math.sin(angle)) * 0.9).clip(0, 1)[..., None]
    first, second = colour(rng, hue, 0.38), colour(rng, hue + 0.08, 0.62)
    return first + position * (second - first)


def colour(rng: np.random.Generator, hue: float, value: float) -> Array:
    """Draw a colour `[3]` of the given hue and HSV value, with a random medium saturation."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.5, 0.75), value))
