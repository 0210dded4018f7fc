"""Contact sheets: images with a row of frames for each clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from adaptok.utils.files import replacing

COLUMNS = 8
_GAP, _CAPTION, _SIDE = 4, 18, 96
_PAPER, _INK = (18, 20, 26), (235, 238, 245)


def save_sheet(path: Path, clips: Sequence[tuple[str, NDArray[np.uint8]]], columns: int = COLUMNS) -> None:
    """Write an image with the caption of each clip above frames evenly spaced in time.

    Args:
        clips: captions, and frames uint8 `[T, H, W, 3]`.
        columns: maximum number of frames per clip.
    """
    count = max(1, min(columns, max((len(frames) for _, frames in clips), default=1)))
    height = _SIDE + _CAPTION + _GAP
    canvas = Image.new("RGB", (count * (_SIDE + _GAP) + _GAP, len(clips) * height + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for row, (caption, frames) in enumerate(clips):
        top = row * height + _GAP
        draw.text((_GAP, top), caption, fill=_INK, font=font)
        for column, index in enumerate(np.linspace(0, len(frames) - 1, count).round().astype(int)):
            image = Image.fromarray(frames[index]).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
            canvas.paste(image, (_GAP + column * (_SIDE + _GAP), top + _CAPTION))
    with replacing(path) as temporary:
        canvas.save(temporary, format="PNG")
