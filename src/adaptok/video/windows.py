"""Clips of a video that overlap in time.

Legend: `T` frames of a clip, `N` frames that neighbouring clips share, `F` frames of the video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptok.video.tiles import fade_in


@dataclass(frozen=True)
class Windows:
    """How the clips of one video follow each other.

    Args:
        frames: F.
        length: T.
        overlap: N, at most T / 2.
    """

    frames: int
    length: int
    overlap: int = 0

    @property
    def stride(self) -> int:
        """Frames between the starts of neighbouring clips."""
        return self.length - self.overlap

    @property
    def count(self) -> int:
        """Number of clips. Each but the first has frames that the clips before it lack."""
        return max(1, math.ceil((self.frames - self.overlap) / self.stride))

    @property
    def last(self) -> int:
        """Frames of the last clip."""
        return self.frames - (self.count - 1) * self.stride

    def at(self, frame: int) -> tuple[int, int]:
        """Return the index of the latest clip that shows a frame, and the place of the frame in it."""
        index = min(frame // self.stride, self.count - 1)
        return index, frame - index * self.stride


def check_window_overlap(overlap: int, frames: int) -> None:
    """Raise a ValueError unless clips of `frames` frames can share `overlap` frames."""
    if not 0 <= overlap <= frames // 2:
        raise ValueError(f"window overlap {overlap}, expected 0 to {frames // 2} frames, half of a clip")


class CrossFade:
    """Joins clips `[C, T, H, W]` that overlap in time, by fading from each to the next.

    Args:
        overlap: N.
    """

    def __init__(self, overlap: int) -> None:
        self.overlap = overlap
        self._held: Tensor | None = None

    def push(self, clip: Tensor, *, last: bool) -> Tensor:
        """Add the next clip, and return the frames that are final. `last` ends the video."""
        if not self.overlap:
            return clip
        if self._held is not None:
            weight = fade_in(self.overlap).to(clip)[:, None, None]
            mixed = torch.lerp(self._held, clip[:, : self.overlap], weight)
            clip = torch.cat([mixed, clip[:, self.overlap :]], 1)
        if last:
            return clip
        self._held = clip[:, clip.shape[1] - self.overlap :]
        return clip[:, : clip.shape[1] - self.overlap]
