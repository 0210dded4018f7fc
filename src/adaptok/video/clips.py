"""Cutting the frames of a video into clips.

Legend: `T` frames of a clip, `H`, `W` size of a video frame, `S` side of the model's square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def iter_clips(
    frames: Iterable[NDArray[Any]],
    transform: Callable[[NDArray[Any]], Tensor],
    length: int,
    *,
    stride: int | None = None,
    max_clips: int | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield the clips of a video, each with the index of its first frame. Every frame is read and transformed once.

    The last clip has fewer than T frames if the video ends inside it. Drop it, keep it, or extend it with `pad_clip`.

    Args:
        frames: Frames `[H, W, 3]` in order.
        transform: Maps one frame `[1, H, W, 3]` to pixels `[3, 1, S, S]`.
        length: T.
        stride: Frames between the starts of neighbouring clips. None is T, so that clips follow each other.
        max_clips: Stop after this many whole clips.

    Yields:
        The index of the first frame, and pixels `[3, T, S, S]`.
    """
    stride = length if stride is None else stride
    start = count = 0
    held: list[Tensor] = []
    for index, frame in enumerate(frames):
        if index < start:
            continue
        held.append(transform(frame[None]))
        if len(held) == length:
            yield start, torch.cat(held, 1)
            held, start, count = held[stride:], start + stride, count + 1
            if count == max_clips:
                return
    if held:
        yield start, torch.cat(held, 1)


def pad_clip(clip: Tensor, length: int) -> Tensor:
    """Extend a clip `[3, t, H, W]` to `length` frames by repeating its last frame."""
    missing = length - clip.shape[1]
    return torch.cat([clip, clip[:, -1:].expand(-1, missing, -1, -1)], 1) if missing > 0 else clip
