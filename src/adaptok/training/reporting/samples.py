"""Sample sheets: clips and their reconstructions side by side, as pictures and videos.

Legend: `N` clips, `C` channels, `T` frames, `S` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.models.model import Model
from adaptok.utils.files import replacing
from adaptok.video.pixels import to_uint8
from adaptok.video.writing import VideoWriter

LENGTH_DIVISORS = (8, 4, 2, 1)
"""Reconstructions are shown at the maximum length divided by each of these."""
NUM_CLIPS = 6
FPS = 8


@torch.inference_mode()
def save_reconstructions(stem: Path, model: Model, clips: Tensor) -> None:
    """Save the first clips above their reconstructions at rising lengths.

    Args:
        stem: path without suffix. Writes a picture of the first frames (.png) and a video (.mp4).
        model: model with the tokenizer.
        clips: `[N, C, T, S, S]` in [0, 1].
    """
    tokenizer, clips = model.tokenizer, clips[:NUM_CLIPS]
    inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clips)).codes)
    rows = [clips]
    for divisor in LENGTH_DIVISORS:
        lengths = [[max(1, tokenizer.config.latents // divisor)] * tokenizer.config.blocks] * len(clips)
        rows.append(tokenizer.decode(inputs, lengths).float().clamp(0, 1))
    save_sheet(stem, rows)


def save_sheet(stem: Path, rows: Sequence[Tensor], picture: NDArray[np.uint8] | None = None) -> None:
    """Save rows of clips `[N, C, T, S, S]` in [0, 1] as a video, and a picture, by default of the first frames."""
    from matplotlib.image import imsave

    sheet = torch.cat([torch.cat(list(row), -1) for row in rows], -2)  # [C, T, rows * S, N * S]
    frames = to_uint8(sheet.permute(1, 2, 3, 0))
    stem.parent.mkdir(exist_ok=True)
    with replacing(stem.with_suffix(".png")) as path:
        imsave(path, frames[0] if picture is None else picture, format="png")
    with VideoWriter(stem.with_suffix(".mp4"), FPS) as writer:
        writer.write(frames)


def film_strips(clips: Tensor, count: int) -> NDArray[np.uint8]:
    """Lay out `count` evenly spaced frames of each clip `[N, C, T, S, S]`, the first and last included, one clip per
    row. Returns `[N * S, count * S, C]`."""
    chosen = clips[:, :, torch.linspace(0, clips.shape[2] - 1, count).round().long()]
    sheet = torch.cat([torch.cat(list(clip.unbind(1)), -1) for clip in chosen], -2)  # [C, N * S, count * S]
    return to_uint8(sheet.permute(1, 2, 0))
