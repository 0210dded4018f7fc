"""Labelled clips of a moving shape. The way it moves is the class.

A clip is a function of the seed, its class and its index. Positions follow from a few numbers and the time, so the
first frames determine the rest. Shapes are large and slow, so that small models reconstruct their movement.

Legend: `T` frames, `S` side of the picture in pixels. Lengths are in units of that side, times in clips of
`FPS` frames.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from adaptok.data.synthetic.painting import Distance, box, colour, disc, gradient, paint, pixel_centres, triangle
from adaptok.utils.files import replacing
from adaptok.video.pixels import clip_to_frames, frames_to_clip
from adaptok.video.writing import VideoWriter

FPS = 16
"""Frames per second of the videos, and frames per unit of time."""
SETTINGS_FILE = "shapes.json"
_GROUND = 0.86  # y of the ground of bouncing discs


def draw_shape_clip(seed: int, index: int, name: str, frames: int, size: int) -> Tensor:
    """Draw clip `index` of the class `name`: float32 `[3, T, S, S]` in [0, 1].

    Raises:
        ValueError: The class does not exist.
    """
    if name not in _MOVEMENTS:
        raise ValueError(f"class {name!r} of shapes, expected one of {', '.join(CLASSES)}")
    rng = np.random.default_rng([seed, CLASSES.index(name), index])
    hue = rng.random()
    background = gradient(rng, hue, size)
    ink, shadow = colour(rng, hue + rng.uniform(0.35, 0.65), 0.95), colour(rng, hue, 0.12)
    shape_at = _MOVEMENTS[name](rng)
    x, y = pixel_centres(size)
    pictures = []
    for frame in range(frames):
        picture = background
        distance = shape_at(frame / FPS)
        if name == "bounce":
            picture = paint(picture, _GROUND - y, shadow, size)
        shaded = 0.45 * picture + 0.55 * shadow
        picture = paint(picture, distance(x - 0.012, y - 0.02), shaded, size, edge_width=6 / 128)
        lit = ink * (1.08 - 0.35 * y[..., None])
        pictures.append(paint(picture, distance(x, y), lit, size))
    return frames_to_clip(np.stack(pictures).clip(0, 1)).contiguous()


def write_shapes(
    folder: str | Path,
    clips: int,
    *,
    frames: int = 16,
    size: int = 128,
    seed: int = 0,
    crf: int = 8,
    progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Write `clips` videos `folder/CLASS/00000.mp4`, cycling through the classes.

    Existing videos of the same settings are kept, so an interrupted call can be repeated.

    Args:
        crf: Constant rate factor of the H.264 encoder, 0 (lossless) to 51.
        progress: Called with the number of clips just processed.

    Returns:
        The number of clips per class.

    Raises:
        ValueError: A number is out of range, or the folder holds shapes of other settings.
    """
    if clips < 1 or frames < 1 or size < 16 or not 0 <= crf <= 51:
        raise ValueError(
            f"clips {clips}, frames {frames}, size {size}, crf {crf}; expected 1, 1 and 16 or more, and 0 to 51"
        )
    folder = Path(folder)
    _check_settings(folder, {"frames": frames, "size": size, "seed": seed, "crf": crf})
    counts = dict.fromkeys(CLASSES, 0)
    for number in range(clips):
        index, name = number // len(CLASSES), CLASSES[number % len(CLASSES)]
        path = folder / name / f"{index:05d}.mp4"
        path.parent.mkdir(exist_ok=True)
        counts[name] += 1
        if not path.exists():
            with VideoWriter(path, FPS, crf=crf, threads=1) as writer:
                writer.write(clip_to_frames(draw_shape_clip(seed, index, name, frames, size)))
        if progress is not None:
            progress(1)
    return counts


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Record the settings in the folder, or compare them with the recorded ones."""
    path = folder / SETTINGS_FILE
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{folder}: holds shapes of other settings; choose another folder, or remove it")
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(settings), encoding="utf-8")


# Each movement draws its random numbers once and returns the shape as a function of time.


def _bounce(rng: np.random.Generator) -> Callable[[float], Distance]:
    """A disc that bounces on the ground and drifts sideways."""
    radius, height = rng.uniform(0.12, 0.17), rng.uniform(0.4, 0.52)
    start, speed = rng.uniform(0.25, 0.75), rng.uniform(0.1, 0.3) * rng.choice([-1, 1])
    period, phase = rng.uniform(0.9, 1.4), rng.random()

    def at(time: float) -> Distance:
        fall = 2 * ((time / period + phase) % 1) - 1  # 0 at the highest point
        squash = 1 - 0.22 * max(0.0, abs(fall) - 0.86) / 0.14
        cx = _reflect(start + speed * time, radius, 1 - radius)
        cy = _GROUND - radius * squash - height * (1 - fall**2)
        return lambda x, y: disc((x - cx) * math.sqrt(squash), (y - cy) / squash, radius)

    return at


def _orbit(rng: np.random.Generator) -> Callable[[float], Distance]:
    """An upright square that circles around the centre."""
    half, radius = rng.uniform(0.1, 0.14), rng.uniform(0.24, 0.3)
    turn, phase = rng.uniform(0.4, 0.7) * rng.choice([-1, 1]), rng.random()

    def at(time: float) -> Distance:
        angle = 2 * math.pi * (phase + turn * time)
        cx, cy = 0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)
        return lambda x, y: box(x - cx, y - cy, half, half, corner_radius=0.02)

    return at


def _spin(rng: np.random.Generator) -> Callable[[float], Distance]:
    """A triangle that rotates in place."""
    cx, cy, radius = rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6), rng.uniform(0.26, 0.34)
    turn, phase = rng.uniform(0.15, 0.35) * rng.choice([-1, 1]), rng.random()

    def at(time: float) -> Distance:
        angle = 2 * math.pi * (phase + turn * time)
        return lambda x, y: triangle(x - cx, y - cy, radius, angle, corner_radius=0.03)

    return at


def _slide(rng: np.random.Generator) -> Callable[[float], Distance]:
    """A long bar that crosses the picture along its length, horizontally or vertically, and enters again."""
    half_length, half_width = rng.uniform(0.18, 0.24), rng.uniform(0.07, 0.1)
    across, start = rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.8)
    speed, vertical = rng.uniform(0.5, 0.9) * rng.choice([-1, 1]), rng.random() < 0.5

    def at(time: float) -> Distance:
        along = (start + half_length + speed * time) % (1 + 2 * half_length) - half_length
        cx, cy = (across, along) if vertical else (along, across)
        width, height = (half_width, half_length) if vertical else (half_length, half_width)
        return lambda x, y: box(x - cx, y - cy, width, height, corner_radius=0.03)

    return at


_MOVEMENTS: dict[str, Callable[[np.random.Generator], Callable[[float], Distance]]] = {
    "bounce": _bounce,
    "orbit": _orbit,
    "slide": _slide,
    "spin": _spin,
}
CLASSES = tuple(_MOVEMENTS)
"""Names of the classes."""


def _reflect(value: float, low: float, high: float) -> float:
    """Reflect a value at two walls until it lies between them."""
    width = high - low
    return low + abs((value - low + width) % (2 * width) - width)
