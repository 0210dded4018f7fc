"""Example clips of a report: the original beside reconstructions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from adaptok.evaluation.partial_results import PartialResults
from adaptok.evaluation.results import ClipRank, Examples
from adaptok.video.pixels import clip_to_frames

MAX_FRAMES = 4
"""Maximum number of frames that show a clip."""

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """A clip to show: for every caption some frames `[H, W, 3]`, first of the original, then of reconstructions."""

    clip: ClipRank
    rows: list[tuple[str, list[Frame]]]

    @classmethod
    def of(cls, clip: ClipRank, clips: Sequence[tuple[str, Tensor]]) -> Example:
        """Select frames of clips `[3, T, H, W]`, evenly spaced in time."""
        count = clips[0][1].shape[1]
        indices = np.linspace(0, count - 1, min(MAX_FRAMES, count)).round().astype(int)
        return cls(clip, [(name, list(clip_to_frames(pixels[:, indices]))) for name, pixels in clips])


class ExampleSource(Protocol):
    """Loads the frames of examples."""

    def example(self, results: PartialResults, clip: ClipRank) -> Example: ...


def load_examples(source: ExampleSource, results: PartialResults, examples: Examples) -> dict[str, list[Example]]:
    """Load the frames of the worst and the best clips."""
    groups = {"worst": examples.worst, "best": examples.best}
    return {name: [source.example(results, clip) for clip in clips] for name, clips in groups.items()}
