"""Clips of photographs seen by a moving camera, which follows a smooth path of homographies.

Legend: `T` frames, `S` side of the clip in pixels, `H`, `W` size of the photograph, `h`, `w` size of its visible part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adaptok.data.synthetic.painting import pixel_centres
from adaptok.video.pixels import frames_to_clip

Floats = NDArray[np.float64]

_CORNERS = np.array([[-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]], dtype=np.float64)
_MIN_SCALE = 0.9  # photograph pixels per clip pixel in the closest view; closer views only show blur


@dataclass(frozen=True)
class _View:
    """A camera path placed in a photograph.

    Attributes:
        top, left, height, width: Part of the photograph that is visible in any frame, in pixels.
        grid: `[T, S, S, 2]` sampling positions (x, y) in that part, from -1 to 1 between its edges.
        scale: Clip pixels per photograph pixel in the widest frame. Below 1, the photograph is downscaled first, which
            avoids aliasing.
    """

    top: int
    left: int
    height: int
    width: int
    grid: Tensor
    scale: float


def photograph_clip(photographs: list[NDArray[np.uint8]], rng: np.random.Generator, frames: int, size: int) -> Tensor:
    """Render the view of a camera that moves over photographs.

    Args:
        photographs: One or two photographs uint8 `[H, W, 3]`. Parts of the second move in front of the first.
        rng: Draws the movement.
        frames, size: T and S.

    Returns:
        float32 `[3, T, S, S]` in [0, 1].
    """
    backdrop = _render(photographs[0], _place(camera_path(rng, frames), photographs[0], rng, size))
    if len(photographs) == 1:
        return backdrop
    view = _place(camera_path(rng, frames), photographs[1], rng, size)
    mask = _sample(_blob(rng, view), view)
    return backdrop + mask * (_render(photographs[1], view) - backdrop)


def camera_path(rng: np.random.Generator, frames: int) -> Floats:
    """Draw a smooth camera path: homographies `[T, 3, 3]` of the square [-1, 1]²."""
    pan = _direction(rng) * np.exp(rng.uniform(np.log(0.03), np.log(1.2)))
    zoom = _sometimes(rng, 0.5) * rng.uniform(-0.3, 0.3)
    turn = _sometimes(rng, 0.4) * rng.uniform(-0.2, 0.2)
    tilt = _sometimes(rng, 0.5) * rng.uniform(-0.12, 0.12, 2)
    swing = _sometimes(rng, 0.3) * rng.uniform(-0.12, 0.12, 2)
    shake = _sometimes(rng, 0.4) * rng.uniform(0.002, 0.015) * _tremor(rng, frames)  # [T, 3]
    along = _progress(rng, frames) - 0.5
    position = along[:, None] * pan + shake[:, :2]
    angle = rng.normal(0, 0.03) + along * turn + shake[:, 2] * 0.5
    return _homographies(position, angle, np.exp(along * zoom), tilt + along[:, None] * swing)


def _homographies(position: Floats, angle: Floats, scale: Floats, tilt: Floats) -> Floats:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    one = np.ones_like(cos)
    rows = [[cos, -sin, position[:, 0]], [sin, cos, position[:, 1]], [tilt[:, 0], tilt[:, 1], one]]
    return np.moveaxis(np.array(rows), -1, 0)  # [T, 3, 3]


def _sometimes(rng: np.random.Generator, probability: float) -> float:
    """Draw 1 with the given probability, else 0."""
    return float(rng.random() < probability)


def _direction(rng: np.random.Generator) -> Floats:
    """Draw a unit vector. Horizontal directions are more likely, as in real camera pans."""
    vector = rng.normal(size=2) * (1.0, 0.6)
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _progress(rng: np.random.Generator, frames: int) -> Floats:
    """Draw the progress of the frames along the path, 0 to 1: linear, eased, or eased within part of the clip."""
    t = np.linspace(0, 1, frames)
    kind = rng.integers(3)
    if kind == 0:
        return t
    length = 1.0 if kind == 1 else rng.uniform(0.3, 0.8)
    start = rng.uniform(0, 1 - length) if length < 1 else 0.0
    t = np.clip((t - start) / length, 0, 1)
    return t * t * (3 - 2 * t)


def _tremor(rng: np.random.Generator, frames: int) -> Floats:
    """Draw handheld shake around 0: sums `[T, 3]` of slow and fast sine waves of about unit amplitude."""
    periods = rng.uniform((5, 9, 18), (9, 18, 40), (3, 3))  # frames
    phases = rng.uniform(0, 2 * np.pi, (3, 3))
    waves = np.sin(2 * np.pi * np.arange(frames)[:, None, None] / periods + phases)  # [T, 3, 3]
    return (waves * (0.3, 0.6, 1.0)).sum(-1)


def _project(path: Floats, points: Floats) -> Floats:
    """Map points `[N, 3]` by every homography to `[T, N, 2]`."""
    mapped = points @ np.swapaxes(path, 1, 2)
    return mapped[..., :2] / mapped[..., 2:]


def _place(path: Floats, photograph: NDArray[np.uint8], rng: np.random.Generator, size: int) -> _View:
    """Draw the distance and position of the camera so that it never sees beyond the photograph."""
    corners = _project(path, _CORNERS)  # [T, 4, 2]; they bound the convex quadrilateral that is visible
    low, high = corners.min((0, 1)), corners.max((0, 1))
    height, width = photograph.shape[:2]
    half, centre = _position(low, high, (width, height), rng, size)
    first = np.clip(np.floor(centre + low * half), 0, (width - 1, height - 1)).astype(int)
    last = np.clip(np.ceil(centre + high * half), first + 1, (width, height)).astype(int)
    positions = (_project(path, _raster(size)) * half + centre - first) / (last - first) * 2 - 1
    grid = torch.from_numpy(positions.astype(np.float32)).view(len(path), size, size, 2)
    width, height = (last - first).tolist()
    return _View(int(first[1]), int(first[0]), height, width, grid, _scale(corners, half, size))


def _position(
    low: Floats, high: Floats, picture: tuple[int, int], rng: np.random.Generator, size: int
) -> tuple[float, Floats]:
    """Draw the distance and position of a camera that sees `low` to `high` and never beyond a picture (width, height).

    Returns:
        Picture pixels per unit of the path, and the position (x, y) of its origin in the picture.
    """
    farthest = float((picture / (high - low)).min())
    nearest = min(size * _MIN_SCALE / 2, farthest)
    half = float(np.exp(rng.uniform(np.log(nearest), np.log(farthest))))
    room = np.maximum(picture - (high - low) * half, 0)
    return half, rng.uniform(0, 1, 2) * room - low * half


def photograph_homographies(
    picture: tuple[int, int], rng: np.random.Generator, frames: int, size: int
) -> tuple[Floats, float]:
    """Draw a camera path over a photograph.

    Args:
        picture: Width and height of the photograph in pixels.
        rng: Draws the movement.
        frames, size: T and S.

    Returns:
        float64 `[T, 3, 3]`, which map pixels (x, y, 1) of a frame to positions in the photograph, and the number of
        clip pixels per photograph pixel in the widest frame. Pixel centres are at halves.
    """
    path = camera_path(rng, frames)
    corners = _project(path, _CORNERS)
    half, centre = _position(corners.min((0, 1)), corners.max((0, 1)), picture, rng, size)
    place = np.array([[half, 0, centre[0]], [0, half, centre[1]], [0, 0, 1]])
    raster = np.array([[2 / size, 0, -1], [0, 2 / size, -1], [0, 0, 1]])
    return place @ path @ raster, _scale(corners, half, size)


def _raster(size: int) -> Floats:
    """Return the homogeneous coordinates `[S·S, 3]` of the pixel centres in [-1, 1]², row by row."""
    x, y = pixel_centres(size)
    return np.stack([x * 2 - 1, y * 2 - 1, np.ones_like(x)], -1).reshape(-1, 3)


def _scale(corners: Floats, half: float, size: int) -> float:
    """Return clip pixels per photograph pixel in the widest frame, measured along the longest visible side."""
    order = corners[:, [0, 1, 3, 2]]
    sides = np.linalg.norm(order - np.roll(order, 1, axis=1), axis=-1)  # [T, 4]
    return float(size / (sides.max() * half))


def _render(photograph: NDArray[np.uint8], view: _View) -> Tensor:
    """Render a photograph in a view: `[3, T, S, S]`."""
    part = photograph[view.top : view.top + view.height, view.left : view.left + view.width]
    picture = frames_to_clip(part[None]).transpose(0, 1)  # [1, 3, h, w]
    if view.scale < 1:
        shape = [max(1, round(side * view.scale)) for side in (view.height, view.width)]
        picture = F.interpolate(picture, size=shape, mode="bilinear", antialias=True, align_corners=False)
    return _sample(picture, view)


def _sample(picture: Tensor, view: _View) -> Tensor:
    """Sample a picture `[1, C, h, w]` of the visible part: `[C, T, S, S]`."""
    frames, size = view.grid.shape[:2]
    sampled = F.grid_sample(
        picture, view.grid.view(1, frames * size, size, 2), mode="bilinear", padding_mode="border", align_corners=False
    )
    return sampled[0].unflatten(1, (frames, size))


def _blob(rng: np.random.Generator, view: _View) -> Tensor:
    """Draw the opacity `[1, 1, h, w]` of the front layer: about a third is opaque, with edges of one or two pixels."""
    shape = (max(8, round(view.height * min(1.0, view.scale))), max(8, round(view.width * min(1.0, view.scale))))
    coarse = torch.from_numpy(rng.normal(size=(1, 1, 5, 5)).astype(np.float32))
    field = F.interpolate(coarse, size=shape, mode="bicubic", align_corners=True)
    level = field.flatten().quantile(rng.uniform(0.5, 0.8))
    return torch.sigmoid((field - level) * 0.5 * max(shape))
