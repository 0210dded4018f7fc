"""Protocols: which clips of a collection are evaluated, and how frames are brought to the model's square.

Legend: `T` frames of a clip, `H`, `W` pixels of a video, `S` side of the square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.choices import GenerationKind, ProtocolName
from adaptok.video.clips import iter_clips, pad_clip
from adaptok.video.geometry import Geometry
from adaptok.video.limits import ANY_DURATION
from adaptok.video.sources import FrameSource, open_frames

PROTOCOLS: dict[ProtocolName, str] = {
    "all": "all whole clips of every video; the largest square in the middle, resized (antialiased bilinear)",
    "adaptok": "the first clip of every video, sorted by path; short side resized (antialiased bilinear), then the"
    " centre cropped; a shorter video repeats its last frame",
}
"""Description of each protocol for the report. "official" is the former name of "adaptok"."""


@dataclass(frozen=True)
class GenerationProtocol:
    """How generated videos are compared with a collection.

    Attributes:
        name: description for the report.
        count: number of generated videos.
        size: side of the square on which features are computed, in pixels.
    """

    name: str
    count: int
    size: int


GENERATION: dict[GenerationKind, GenerationProtocol] = {
    "class": GenerationProtocol("class-conditional generation, labels in the data's proportion", 10_000, 128),
    "frame": GenerationProtocol("frame prediction", 50_000, 64),
}
"""Published protocols (arXiv 2505.17011) for UCF-101 and Kinetics-600."""


@dataclass(frozen=True)
class ClipSelection:
    """Which clips of a video are measured.

    Args:
        protocol: see `PROTOCOLS`.
        frames: T.
        size: S; None keeps the size of the frames.
        partial: with the protocol "all", include a last clip that is shorter.
        start: first frame that is read.
    """

    protocol: ProtocolName
    frames: int
    size: int | None
    partial: bool = False
    start: int = 0

    def clips(self, path: Path, seen: Callable[[FrameSource], None] = lambda _: None) -> Iterator[Tensor]:
        """Read the clips `[3, T, S, S]` (or `[3, T, H, W]`) of a video, in [0, 1].

        Args:
            seen: called with the source of the frames before the first and after the last clip.

        Raises:
            VideoError: the video cannot be read.
            ValueError: the video has no clip.
        """
        with open_frames(path, limits=ANY_DURATION) as source:
            official = self.protocol != "all"
            transform = self._transform(source)
            given = count = 0
            frames = islice(source.frames, self.start, None)
            seen(source)
            for _, clip in iter_clips(frames, transform, self.frames, max_clips=1 if official else None):
                count = clip.shape[1]
                if count == self.frames or official or self.partial:
                    yield pad_clip(clip, self.frames) if official else clip
                    given += 1
            seen(source)
            if not given:
                raise ValueError(f"{count} frames, fewer than the {self.frames} of a clip")

    def clip(self, path: Path, number: int) -> Tensor:
        """Read one clip of a video."""
        return next(islice(self.clips(path), number, None))

    def _transform(self, source: FrameSource) -> Callable[[NDArray[Any]], Tensor]:
        """Map a frame `[1, H, W, 3]` to `[3, 1, S, S]`, or to `[3, 1, H, W]` without a size."""
        size = self.size
        if size is None:
            return lambda frame: torch.from_numpy(frame).permute(3, 0, 1, 2).float() / 255
        if self.protocol != "all":
            return lambda frame: resize_then_crop(frame[0], size)
        return Geometry("crop", source.width, source.height, size).apply


def resize_then_crop(frame: NDArray[np.uint8], size: int) -> Tensor:
    """Map a frame uint8 `[H, W, 3]` to `[3, 1, S, S]` in the official order, with torchvision's rounding.

    The long side is rounded down and the offset of the crop to the nearest even number. A short side of S is not
    resized.
    """
    height, width = frame.shape[:2]
    short = min(height, width)
    pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).float()[None] / 255
    if short != size:
        scaled = [size if side == short else int(size * side / short) for side in (height, width)]
        pixels = F.interpolate(pixels, scaled, mode="bilinear", antialias=True).clamp(0, 1)
    top, left = (round((side - size) / 2) for side in pixels.shape[2:])
    return pixels[:, :, top : top + size, left : left + size].transpose(0, 1)
