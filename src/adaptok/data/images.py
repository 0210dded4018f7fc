"""Photographs as clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from adaptok.data.decoding import FileSet, FrameCache, Frames, decode
from adaptok.data.manifests import IMAGE_SUFFIXES, Folders, find_entries
from adaptok.data.synthetic.camera import photograph_clip
from adaptok.data.videos import ClipShape, nothing

_ATTEMPTS = 100


class ImageFolder(FileSet):
    """The photographs in some folders and the folders within, or in lists, as clips under a moving camera."""

    def __init__(
        self,
        folders: Folders,
        root: str | Path | None = None,
        *,
        still_share: float = 0.12,
        layered_share: float = 0.25,
    ) -> None:
        """List the photographs; they are read when they are drawn.

        Args:
            root: where relative paths in lists start.
            still_share: share of the clips in which nothing moves.
            layered_share: share of the moving clips in which parts of a second photograph move in front.

        Raises:
            FileNotFoundError: a folder does not exist.
            ValueError: there is no photograph, or the first few cannot be read.
        """
        super().__init__()
        self.paths = [entry.path for entry in find_entries(folders, IMAGE_SUFFIXES, root)]
        self.listed = len(self.paths)
        self.still_share = share("still_share", still_share)
        self.layered_share = share("layered_share", layered_share)
        if not any(self._picture(path, 8, FrameCache(0)) is not None for path in self.paths):
            raise ValueError(nothing("image", folders, self.broken))

    def __len__(self) -> int:
        return len(self.paths)

    def clip(self, rng: np.random.Generator, shape: ClipShape, cache: FrameCache) -> Tensor:
        """A random view of a random photograph; see `ClipSource`."""
        still = rng.random() < self.still_share
        layers = 2 if not still and rng.random() < self.layered_share else 1
        pictures = [self._draw(rng, shape.size, cache) for _ in range(layers)]
        clip = photograph_clip(pictures, rng, 1 if still else shape.frames, shape.size)
        return clip.expand(-1, shape.frames, -1, -1)

    def _draw(self, rng: np.random.Generator, size: int, cache: FrameCache) -> Frames:
        for _ in range(_ATTEMPTS):
            picture = self._picture(self.paths[rng.integers(len(self.paths))], size, cache)
            if picture is not None:
                return picture
        raise ValueError(f"{_ATTEMPTS} images in a row could not be read; the last ones: {list(self.broken)[-3:]}")

    def _picture(self, path: Path, size: int, cache: FrameCache) -> Frames | None:
        """`[H, W, 3]`, its short side at most twice the clip's."""
        decoded = self.load(path, lambda: cache.get(f"{path}@{2 * size}", lambda: decode(path, 1, 2 * size)))
        return None if decoded is None else decoded.frames[0]


def share(name: str, value: float) -> float:
    """The value, which must be a share.

    Raises:
        ValueError: it is not in [0, 1].
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must be between 0 and 1")
    return value
