"""Conditions of generators: the numbers of classes, and the first frames of clips and their ids.

Legend: `B` clips, `F` first frames, `S` pixels of a side.
"""

from __future__ import annotations

import difflib
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.codec.codec import AdapTok
from adaptok.config.generator import GeneratorConfig
from adaptok.video.clips import pad_clip
from adaptok.video.limits import ANY_DURATION
from adaptok.video.sources import Video, open_frames

Label = str | int


def class_number(config: GeneratorConfig, label: Label) -> int:
    """Return the number of a class that is given by its name, in any case, or its number.

    Raises:
        ValueError: the label is unknown, or the generator has no classes.
    """
    if not config.classes:
        raise ValueError("this generator predicts frames and has no classes; give first frames instead of labels")
    exact, folded = list(config.labels), [name.casefold() for name in config.labels]
    for name, known in ((str(label), exact), (str(label).casefold(), folded)):  # file names of UCF-101 differ from
        if name in known:  # its folders in case
            return known.index(name)
    if isinstance(label, int) or label.isdecimal():
        if 0 <= int(label) < config.classes:
            return int(label)
        raise ValueError(f"label {label}, expected 0 to {config.classes - 1}")
    near = difflib.get_close_matches(label, exact, n=3, cutoff=0.3) or exact[:5]
    hint = (
        f"did you mean {', '.join(map(repr, near))}?" if near else f"expected a number from 0 to {config.classes - 1}"
    )
    raise ValueError(f"unknown label {label!r}: {hint}")


def encode_conditions(config: GeneratorConfig, codec: AdapTok, clips: Tensor) -> Tensor:
    """Encode first frames as conditions, with all tokens.

    The last frame is repeated to fill its block. Later blocks of a clip would not change the ids.

    Args:
        config: configuration of the generator.
        codec: its tokenizer.
        clips: first frames `[B, 3, F, S, S]` in [0, 1].

    Returns:
        int64 `[B, condition_ids]`, on the CPU.

    Raises:
        ValueError: there are fewer frames than the condition needs, or more than its blocks hold.
    """
    pt = codec.config.tokenizer.temporal_patch_size
    blocks = config.condition_ids // config.latents
    min_frames, max_frames = max(config.first_block * pt, (blocks - 1) * pt + 1), blocks * pt
    frames = clips.shape[2]
    if not min_frames <= frames <= max_frames:
        raise ValueError(f"{frames} first frames, expected {min_frames} to {max_frames} for the condition")
    padded = torch.stack([pad_clip(clip, blocks * pt) for clip in clips])
    return codec.encode_clips(padded).ids.flatten(1).cpu()


def read_first_frames(
    video: Video, count: int, *, start: float = 0.0, fps: Fraction | float | None = None
) -> NDArray[Any]:
    """Read the first frames `[count, height, width, 3]` of a video.

    Raises:
        ValueError: the video has fewer frames.
    """
    frames: list[NDArray[Any]] = []
    with open_frames(video, start=start, fps=fps, limits=ANY_DURATION) as source:
        for frame in source.frames:
            frames.append(frame)
            if len(frames) == count:
                return np.stack(frames)
    raise ValueError(f"video of {len(frames)} frames, the condition needs {count}; give a longer video")
