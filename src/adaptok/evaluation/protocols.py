"""Which frames of a collection are evaluated, and how they come to the model's square.

Legend: `T` frames of a clip, `H`, `W` pixels of a video, `S` of the square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.choices import ProtocolName
from adaptok.video.clips import iter_clips, pad_clip
from adaptok.video.geometry import Geometry
from adaptok.video.sources import FrameSource, open_frames

PROTOCOLS: dict[ProtocolName, str] = {
    "all": "all whole clips of every video; the largest square in the middle, resized (antialiased bilinear)",
    "official": "the first clip of every video; short side resized (antialiased bilinear), then the centre cropped; a"
    " shorter video repeats its last frame",
}
"""What each protocol takes, in words for the report."""


@dataclass(frozen=True)
class Cut:
    """Which clips of a video are taken.

    Args:
        protocol: see `PROTOCOLS`.
        frames: T.
        size: S; None leaves frames at their size.
        partial: with the protocol "all", also the last clip where it is shorter.
    """

    protocol: ProtocolName
    frames: int
    size: int | None
    partial: bool = False

    def clips(self, path: Path, seen: Callable[[FrameSource], None] = lambda _: None) -> Iterator[Tensor]:
        """Clips `[3, T, S, S]` (or `[3, T, H, W]`) in [0, 1] of a video.

        Args:
            seen: called with what is read, at the beginning and at the end.

        Raises:
            VideoError: it cannot be read.
            ValueError: it has no clip.
        """
        with open_frames(path) as source:
            official = self.protocol == "official"
            transform = self._transform(source)
            given = count = 0
            seen(source)
            for _, clip in iter_clips(source.frames, transform, self.frames, max_clips=1 if official else None):
                count = clip.shape[1]
                if count == self.frames or official or self.partial:
                    yield pad_clip(clip, self.frames) if official else clip
                    given += 1
            seen(source)
            if not given:
                raise ValueError(f"{count} frames, fewer than the {self.frames} of a clip")

    def _transform(self, source: FrameSource) -> Callable[[NDArray[Any]], Tensor]:
        """Map a frame `[1, H, W, 3]` to `[3, 1, S, S]`, or to `[3, 1, H, W]` without a size."""
        size = self.size
        if size is None:
            return lambda frame: torch.from_numpy(frame).permute(3, 0, 1, 2).float() / 255
        if self.protocol == "official":
            return lambda frame: resize_then_crop(frame[0], size)
        return Geometry("crop", source.width, source.height, size).apply


def resize_then_crop(frame: NDArray[np.uint8], size: int) -> Tensor:
    """A frame uint8 `[H, W, 3]` to `[3, 1, S, S]`: the official order, with torchvision's rounding.

    The long side is rounded down, the crop's offset to the nearest even; a short side of S is left alone.
    """
    height, width = frame.shape[:2]
    short = min(height, width)
    picture = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).float()[None] / 255
    if short != size:
        scaled = [size if side == short else int(size * side / short) for side in (height, width)]
        picture = F.interpolate(picture, scaled, mode="bilinear", antialias=True).clamp(0, 1)
    top, left = (round((side - size) / 2) for side in picture.shape[2:])
    return picture[:, :, top : top + size, left : left + size].transpose(0, 1)
