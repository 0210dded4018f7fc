"""Drawn clips with sharp edges: shapes with flat or patterned fills, and text, still or moving.

Videos that were compressed before contain few edges of full contrast. Titles, drawings and screens consist of them.

Legend: `T` frames, `S` side of the picture in pixels. Lengths are in units of that side. Times run from 0 to 1
in a clip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from adaptok.data.decoding import FileSet, FrameCache
from adaptok.data.synthetic.painting import Array, box, colour, disc, gradient, paint, pixel_centres, triangle
from adaptok.data.synthetic.shapes import CLASSES, draw_shape_clip
from adaptok.data.videos import ClipSpec
from adaptok.utils.extras import require
from adaptok.video.pixels import frames_to_clip

_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "DejaVuSerif-Bold")  # from matplotlib
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_STILL_FRACTION = 0.15
_SHAPE_CLASS_FRACTION = 0.25  # clips of one of the classes of `shapes`

Layer = Callable[[Array, float], Array]
"""Draws over a picture `[S, S, 3]` at a time."""


class Drawings(FileSet):
    """Source of drawn clips, without files. See `ClipSource`."""

    def clip(self, rng: np.random.Generator, spec: ClipSpec, cache: FrameCache) -> Tensor:
        """Draw a clip `[3, T, S, S]` in [0, 1]. See `ClipSource`."""
        return draw_clip(rng, spec.frames, spec.size)


def draw_clip(rng: np.random.Generator, frames: int, size: int) -> Tensor:
    """Draw up to four shapes on a background, usually with text in front, or a clip of `shapes`.

    Returns:
        float32 `[3, T, S, S]` in [0, 1].
    """
    if rng.random() < _SHAPE_CLASS_FRACTION:
        return draw_shape_clip(int(rng.integers(2**31)), 0, CLASSES[rng.integers(len(CLASSES))], frames, size)
    still = rng.random() < _STILL_FRACTION
    background = _background(rng, size)
    layers = [_shape(rng, size) for _ in range(rng.integers(0, 5))]
    if not layers or rng.random() < 0.5:
        layers += [_text(rng, size) for _ in range(rng.integers(1, 3))]
    pictures = []
    for time in _times(1 if still else frames):
        picture = background
        for layer in layers:
            picture = layer(picture, time)
        pictures.append(picture)
    return frames_to_clip(np.stack(pictures).clip(0, 1)).expand(-1, frames, -1, -1).contiguous()


def add_caption(clip: Tensor, rng: np.random.Generator) -> Tensor:
    """Draw a random caption in front of a clip `[3, T, S, S]` in [0, 1], like a title or subtitle."""
    layer = _text(rng, clip.shape[-1])
    frames = clip.permute(1, 2, 3, 0).double().numpy()
    pictures = [layer(frame, time) for frame, time in zip(frames, _times(len(frames)), strict=True)]
    return frames_to_clip(np.stack(pictures).clip(0, 1))


def _times(frames: int) -> list[float]:
    return [frame / frames for frame in range(frames)]


def _ink(rng: np.random.Generator) -> Array:
    """Draw a colour. 40 % are shades of grey, black or white."""
    if rng.random() < 0.4:
        return np.full(3, rng.choice([0.0, 0.05, 0.5, 0.95, 1.0]))
    return colour(rng, rng.random(), rng.uniform(0.15, 1.0))


def _pattern(rng: np.random.Generator, size: int) -> Array:
    """Draw stripes or a checkerboard of two colours, `[S, S, 3]`. At S = 128, cells have 6 to 40 pixels."""
    x, y = pixel_centres(size)
    angle, cell = rng.uniform(0, math.pi) * (rng.random() < 0.6), np.exp(rng.uniform(math.log(6), math.log(40))) / 128
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    edge = 0.5 * cell - abs(u % (2 * cell) - cell)  # distance to the next edge; the sign alternates between stripes
    if rng.random() < 0.5:
        across = 0.5 * cell - abs(v % (2 * cell) - cell)
        edge = np.sign(edge * across) * np.minimum(abs(edge), abs(across))
    first, second = _ink(rng), _ink(rng)
    return paint(np.broadcast_to(first, (size, size, 3)), edge, second, size)


def _background(rng: np.random.Generator, size: int) -> Array:
    kind = rng.random()
    if kind < 0.4:
        return np.broadcast_to(_ink(rng), (size, size, 3))
    return gradient(rng, rng.random(), size) if kind < 0.8 else _pattern(rng, size)


def _shape(rng: np.random.Generator, size: int) -> Layer:
    """Create a filled or outlined shape that moves straight and may rotate. A patterned fill does not move with it."""
    kind, radius = rng.integers(3), np.exp(rng.uniform(math.log(0.04), math.log(0.35)))
    half_height = radius * rng.uniform(0.3, 1.0)
    ink = _pattern(rng, size) if rng.random() < 0.15 else _ink(rng)
    outline = rng.uniform(0.015, 0.05) if rng.random() < 0.25 else None
    start, speed = rng.uniform(0.05, 0.95, 2), rng.normal(0, 0.35, 2) * (rng.random() < 0.75)
    turn, phase = rng.normal(0, 0.25) * (rng.random() < 0.5), rng.random() * (rng.random() < 0.7)
    x, y = pixel_centres(size)

    def draw(picture: Array, time: float) -> Array:
        cx, cy = start + speed * time
        angle = 2 * math.pi * (phase + turn * time)
        u = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
        v = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
        if kind == 0:
            distance = disc(u, v, radius)
        elif kind == 1:
            distance = box(u, v, radius, half_height, corner_radius=0.0)
        else:
            distance = triangle(x - cx, y - cy, radius, angle, corner_radius=0.0)
        return paint(picture, distance if outline is None else abs(distance) - outline / 2, ink, size)

    return draw


def _text(rng: np.random.Generator, size: int) -> Layer:
    """Create one to three lines of words or numbers, centred or anywhere, still or moving, with or without a panel."""
    lines = [_words(rng) for _ in range(rng.integers(1, 4))]
    height = max(6, round(size * np.exp(rng.uniform(math.log(9), math.log(34))) / 128))
    mask = _render_text(tuple(lines), str(rng.choice(_FONTS)), height)
    is_light = rng.random() < 0.5
    ink, panel = _ink(rng).clip(0.75, 1), _ink(rng).clip(0, 0.3)
    if not is_light:
        ink, panel = 1 - ink, 1 - panel
    has_panel = rng.random() < 0.4
    room = np.array([size, size]) - mask.shape
    start = rng.uniform(0, 1, 2) * room if rng.random() < 0.8 else np.array([0.5, 0.5]) * room
    speed = rng.normal(0, 0.5, 2) * size * np.array([0.5, 1.0]) * (rng.random() < 0.4)

    def draw(picture: Array, time: float) -> Array:
        top, left = np.round(start + speed * time).astype(int)
        rows = slice(max(top, 0), max(top + mask.shape[0], 0))
        columns = slice(max(left, 0), max(left + mask.shape[1], 0))
        covered = picture[rows, columns]
        row, column = max(-top, 0), max(-left, 0)
        opacity = mask[row : row + covered.shape[0], column : column + covered.shape[1], None]
        below = panel if has_panel else covered
        result = picture.copy()
        result[rows, columns] = below + opacity * (ink - below)
        return result

    return draw


def _words(rng: np.random.Generator) -> str:
    if rng.random() < 0.25:
        return f"{rng.integers(0, 24):02d}:{rng.integers(0, 60):02d}"
    words = ["".join(rng.choice(list(_LETTERS), rng.integers(1, 9))) for _ in range(rng.integers(1, 4))]
    style = rng.integers(3)
    return " ".join(word.upper() if style == 0 else word.capitalize() if style == 1 else word for word in words)


def _render_text(lines: tuple[str, ...], font: str, height: int) -> Array:
    """Render lines of text as opacity `[h, w]` in [0, 1], with a margin."""
    face, margin = _font(font, height), height // 3
    drawing = ImageDraw.Draw(Image.new("L", (1, 1)))
    text = "\n".join(lines)
    left, top, right, bottom = drawing.multiline_textbbox((0, 0), text, font=face)
    picture = Image.new("L", (math.ceil(right - left) + 2 * margin, math.ceil(bottom - top) + 2 * margin))
    ImageDraw.Draw(picture).multiline_text((margin - left, margin - top), text, fill=255, font=face)
    return np.asarray(picture, dtype=np.float64) / 255


@lru_cache(maxsize=256)
def _font(name: str, height: int) -> ImageFont.FreeTypeFont:
    require("matplotlib", extra="train", purpose="text in clips")
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), height)
