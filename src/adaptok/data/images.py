"""Training clips from photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from adaptok.data.augmentation import check_fraction
from adaptok.data.decoding import FileSet, FrameCache, Frames, decode
from adaptok.data.manifests import IMAGE_SUFFIXES, Paths, find_entries, no_readable_message
from adaptok.data.synthetic.camera import photograph_clip
from adaptok.data.videos import MAX_ATTEMPTS, ClipSpec


class ImageFolder(FileSet):
    """Photographs of folders (searched recursively) or lists, shown by a moving camera."""

    def __init__(
        self,
        folders: Paths,
        root: str | Path | None = None,
        *,
        still_fraction: float = 0.12,
        layered_fraction: float = 0.25,
    ) -> None:
        """List the photographs. Each is decoded when it is drawn.

        Args:
            folders, root: As for `find_entries`.
            still_fraction: Fraction of the clips in which nothing moves.
            layered_fraction: Fraction of the moving clips with parts of a second photograph moving in front.

        Raises:
            FileNotFoundError: A folder does not exist.
            ValueError: No photograph is readable.
        """
        super().__init__()
        self.paths = [entry.path for entry in find_entries(folders, IMAGE_SUFFIXES, root)]
        self.num_files = len(self.paths)
        self.still_fraction = check_fraction("still_fraction", still_fraction)
        self.layered_fraction = check_fraction("layered_fraction", layered_fraction)
        if not any(self._photograph(path, 8, FrameCache(0)) is not None for path in self.paths):
            raise ValueError(no_readable_message("image", folders, self.broken))

    def __len__(self) -> int:
        return len(self.paths)

    def clip(self, rng: np.random.Generator, spec: ClipSpec, cache: FrameCache) -> Tensor:
        """Draw a random view of a random photograph. See `ClipSource`."""
        still = rng.random() < self.still_fraction
        layers = 2 if not still and rng.random() < self.layered_fraction else 1
        photographs = [self._draw_photograph(rng, spec.size, cache) for _ in range(layers)]
        clip = photograph_clip(photographs, rng, 1 if still else spec.frames, spec.size)
        return clip.expand(-1, spec.frames, -1, -1)

    def _draw_photograph(self, rng: np.random.Generator, size: int, cache: FrameCache) -> Frames:
        for _ in range(MAX_ATTEMPTS):
            photograph = self._photograph(self.paths[rng.integers(len(self.paths))], size, cache)
            if photograph is not None:
                return photograph
        raise ValueError(f"{MAX_ATTEMPTS} images in a row could not be read, such as {list(self.broken)[-3:]}")

    def _photograph(self, path: Path, size: int, cache: FrameCache) -> Frames | None:
        """Return a photograph `[H, W, 3]` whose short side is at most twice that of the clip, or None if broken."""
        decoded = self.load(path, lambda: cache.get(f"{path}@{2 * size}", lambda: decode(path, 1, 2 * size)))
        return None if decoded is None else decoded.frames[0]
