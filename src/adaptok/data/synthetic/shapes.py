"""Clips that are drawn: shapes that move in one of a few ways, each way a class.

A clip is a function of the seed and its index. Where a shape is follows from a few numbers and the time, so that its
first frames say how it goes on; they are so large and slow that the model in the box keeps what they do. Shapes are
signed distances, drawn with an edge a pixel wide.

Legend: `T` frames, `S` pixels of a side, `N` corners. Lengths are in sides of the picture, y goes down.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptok.data.synthetic.painting import Distance, box, colour, disc, gradient, paint, raster, triangle
from adaptok.utils.files import replacing
from adaptok.video.writing import VideoWriter

RATE = 16
"""Frames per second of what is written; speeds are per clip of this many frames."""


def shape_clip(seed: int, index: int, name: str, frames: int, size: int) -> Tensor:
    """A clip float32 `[3, T, S, S]` in [0, 1] of a class.

    Raises:
        ValueError: there is no such class.
    """
    if name not in _DRAWN:
        raise ValueError(f"class {name!r} of shapes, expected one of {', '.join(CLASSES)}")
    rng = np.random.default_rng([seed, CLASSES.index(name), index])
    hue = rng.random()
    background = gradient(rng, hue, size)
    shape, shade = colour(rng, hue + rng.uniform(0.35, 0.65), 0.95), colour(rng, hue, 0.12)
    shapes = _DRAWN[name](rng)
    x, y = raster(size)
    pictures = []
    for frame in range(frames):
        picture = background
        distance = shapes(frame / RATE)
        if name == "bounce":  # what it bounces on
            picture = paint(picture, GROUND - y, shade, size)
        picture = paint(picture, distance(x - 0.012, y - 0.02), 0.45 * picture + 0.55 * shade, size, blur=6 / 128)
        light = shape * (1.08 - 0.35 * y[..., None])
        pictures.append(paint(picture, distance(x, y), light, size))
    video = np.stack(pictures).clip(0, 1).astype(np.float32)
    return torch.from_numpy(video).permute(3, 0, 1, 2).contiguous()


def write_shapes(
    folder: str | Path,
    clips: int,
    *,
    frames: int = 16,
    size: int = 128,
    seed: int = 0,
    crf: int = 8,
    advance: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Write clips of all classes in turn, `FOLDER/CLASS/00000.mp4`, and return how many there are of each.

    Videos that are there are kept, if they are of the same seed and size: started again, it goes on where it was
    stopped.

    Args:
        crf: quality of the H.264, 0 (lossless) to 51.
        advance: called with the number of clips just done.

    Raises:
        ValueError: a number is out of range, or the folder holds shapes of other settings.
    """
    if clips < 1 or frames < 1 or size < 16 or not 0 <= crf <= 51:
        raise ValueError(
            f"clips {clips}, frames {frames}, size {size}, crf {crf}; expected 1, 1 and 16 or more, and 0 to 51"
        )
    folder = Path(folder)
    _claim(folder, {"frames": frames, "size": size, "seed": seed, "crf": crf})
    counts = dict.fromkeys(CLASSES, 0)
    for index in range(clips):
        name = CLASSES[index % len(CLASSES)]
        path = folder / name / f"{index // len(CLASSES):05d}.mp4"
        path.parent.mkdir(exist_ok=True)
        counts[name] += 1
        if not path.exists():
            clip = shape_clip(seed, index // len(CLASSES), name, frames, size)
            with VideoWriter(path, RATE, crf=crf, threads=1) as writer:
                writer.write((clip.permute(1, 2, 3, 0) * 255).round().byte().numpy())
        if advance is not None:
            advance(1)
    return counts


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    path = folder / "shapes.json"
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != settings:
        raise ValueError(f"{folder}: holds shapes of other settings; choose another folder, or remove it")
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(settings), encoding="utf-8")


# How shapes move: each takes random numbers once and gives the shape at a time in clips, 0 to 1.

GROUND = 0.86


def _bounce(rng: np.random.Generator) -> Callable[[float], Distance]:
    """A disc that falls, and rises from the ground to where it fell from, again and again, going sideways."""
    radius, high = rng.uniform(0.12, 0.17), rng.uniform(0.4, 0.52)
    across, speed = rng.uniform(0.25, 0.75), rng.uniform(0.1, 0.3) * rng.choice([-1, 1])
    period, phase = rng.uniform(0.9, 1.4), rng.random()

    def at(time: float) -> Distance:
        fall = 2 * ((time / period + phase) % 1) - 1  # 0 at the top
        squash = 1 - 0.22 * max(0.0, abs(fall) - 0.86) / 0.14
        cx = _between(across + speed * time, radius, 1 - radius)
        cy = GROUND - radius * squash - high * (1 - fall**2)
        return lambda x, y: disc((x - cx) * math.sqrt(squash), (y - cy) / squash, radius)

    return at


def _orbit(rng: np.random.Generator) -> Callable[[float], Distance]:
    """A square that goes round the middle, upright."""
    half, radius = rng.uniform(0.1, 0.14), rng.uniform(0.24, 0.3)
    turn, phase = rng.uniform(0.4, 0.7) * rng.choice([-1, 1]), rng.random()

    def at(time: float) -> Distance:
        angle = 2 * math.pi * (phase + turn * time)
        cx, cy = 0.5 + radius * math.cos(angle), 0.5 + radius * math.sin(angle)
        return lambda x, y: box(x - cx, y - cy, half, half, round_by=0.02)

    return at


def _spin(rng: np.random.Generator) -> Callable[[float], Distance]:
    """A triangle that turns about its middle, in one place."""
    cx, cy, radius = rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6), rng.uniform(0.26, 0.34)
    turn, phase = rng.uniform(0.15, 0.35) * rng.choice([-1, 1]), rng.random()

    def at(time: float) -> Distance:
        angle = 2 * math.pi * (phase + turn * time)
        return lambda x, y: triangle(x - cx, y - cy, radius, angle, round_by=0.03)

    return at


def _slide(rng: np.random.Generator) -> Callable[[float], Distance]:
    """A long bar that crosses the picture straight, along its length or across it, and comes in again."""
    wide, high = rng.uniform(0.18, 0.24), rng.uniform(0.07, 0.1)
    place, start = rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.8)  # in the picture at first
    speed, down = rng.uniform(0.5, 0.9) * rng.choice([-1, 1]), rng.random() < 0.5

    def at(time: float) -> Distance:
        along = (start + wide + speed * time) % (1 + 2 * wide) - wide
        cx, cy = (place, along) if down else (along, place)
        a, b = (high, wide) if down else (wide, high)
        return lambda x, y: box(x - cx, y - cy, a, b, round_by=0.03)

    return at


_DRAWN: dict[str, Callable[[np.random.Generator], Callable[[float], Distance]]] = {
    "bounce": _bounce,
    "orbit": _orbit,
    "slide": _slide,
    "spin": _spin,
}
CLASSES = tuple(_DRAWN)
"""Names of the classes."""


def _between(value: float, low: float, high: float) -> float:
    """A value that is mirrored at two walls."""
    width = high - low
    return low + abs((value - low + width) % (2 * width) - width)
