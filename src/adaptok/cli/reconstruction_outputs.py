"""Videos and sampled frames that `adaptok reconstruct` writes while it decodes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adaptok.codec.token_file import VideoTokens
from adaptok.evaluation.report.figures import SideBySide
from adaptok.video.pixels import clip_to_frames
from adaptok.video.sound import Sound
from adaptok.video.writing import VideoWriter

FIGURE_FRAMES = 8
"""Frames of the figure, evenly spaced in time."""


class VideoOutput:
    """Writer of one reconstruction, alone in the original frame size or beside the original.

    Args:
        encodings: the uniform encoding, if it is shown, and the requested one.
        out: video to write; None writes nothing.
        side_by_side: whether the original is shown too.
        sound: sound to write beside the frames.

    Attributes:
        encodings: the encodings shown, the uniform one first if there are two.
    """

    def __init__(
        self,
        encodings: tuple[VideoTokens | None, VideoTokens],
        out: Path | None,
        side_by_side: bool,
        sound: Sound | None = None,
    ) -> None:
        self.encodings = [tokens for tokens in encodings if tokens is not None]
        self._side_by_side = side_by_side
        info = self.encodings[-1].info
        self._geometry = info.geometry
        self._out, self._fps, self._sound = out, info.fps, sound
        self._writer: VideoWriter | None = None
        _, _, height, width = self._geometry.region
        self._picture = SideBySide(self.encodings, width, height)

    def __enter__(self) -> VideoOutput:
        if self._out is not None:
            self._writer = VideoWriter(self._out, self._fps, sound=self._sound).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._writer is not None:
            self._writer.__exit__(*error)

    def visit(self, clips: Sequence[Tensor]) -> None:
        """Write the next frames.

        Args:
            clips: `[3, T, S, S]` each, of the original and of each encoding.
        """
        if self._writer is None:
            return
        if not self._side_by_side:
            self._writer.write(self._geometry.invert(clips[-1]))
            return
        for panels in zip(*(self._view(clip) for clip in clips), strict=True):
            self._writer.write(self._picture.draw(panels))

    def _view(self, clip: Tensor) -> NDArray[np.uint8]:
        """The region of the video that the model sees, at its original aspect ratio."""
        top, left, height, width = self._geometry.region
        return self._geometry.invert(clip)[:, top : top + height, left : left + width]


class SampledFrames:
    """Frames of the original and of each reconstruction, evenly spaced in time.

    Args:
        frames: frames of the video.
        encodings: number of reconstructions.
    """

    def __init__(self, frames: int, encodings: int) -> None:
        count = min(FIGURE_FRAMES, frames)
        self._wanted = set(np.linspace(0, frames - 1, count).round().astype(int).tolist())
        self._seen = 0
        self.original: list[NDArray[np.uint8]] = []
        self.decoded: list[list[NDArray[np.uint8]]] = [[] for _ in range(encodings)]

    def visit(self, original: Tensor, decoded: list[Tensor]) -> None:
        """Keep the wanted ones among the next frames."""
        count = original.shape[1]
        for place in (i for i in range(count) if self._seen + i in self._wanted):
            self.original += list(clip_to_frames(original[:, place : place + 1]))
            for rows, clip in zip(self.decoded, decoded, strict=True):
                rows += list(clip_to_frames(clip[:, place : place + 1]))
        self._seen += count
