"""Random training clips of several sources, and fixed ones for evaluation.

Legend: `T` frames, `S` pixels, `H`, `W` size of a source picture.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from adaptok.data.decoding import FrameCache, Frames, decode
from adaptok.data.images import share
from adaptok.data.manifests import VIDEO_SUFFIXES, Folders, find_entries
from adaptok.data.statistics import UNREADABLE, reason
from adaptok.data.synthetic.drawings import write_over
from adaptok.data.videos import ClipShape, nothing, resize

logger = logging.getLogger(__name__)


class ClipSource(Protocol):
    """Something that clips can be drawn from. `listed` files, of which some may be broken."""

    @property
    def listed(self) -> int: ...

    @property
    def broken(self) -> dict[str, str]:
        """Files that could not be read, with the reason."""

    def clip(self, rng: np.random.Generator, shape: ClipShape, cache: FrameCache) -> Tensor:
        """A clip `[3, T, S, S]` in [0, 1] that depends on the state of `rng` only."""


class ClipMixture(torch.utils.data.Dataset[Tensor]):
    """Random clips of several sources, each the same whenever and wherever it is asked for.

    Clip `i` is a function of the seed and `i` alone: the number of workers, a resumed run and the state of the cache
    change nothing. Read it in order (no shuffling sampler): the clips are already random.
    """

    def __init__(
        self,
        sources: Sequence[ClipSource],
        weights: Sequence[float],
        *,
        frames: int = 16,
        size: int = 128,
        seed: int = 0,
        strides: Sequence[int] = (1, 1, 2),
        flip: bool = True,
        still_share: float = 0.03,
        jitter: float = 0.0,
        text_share: float = 0.0,
        reversed_share: float = 0.0,
        cut_share: float = 0.0,
        least_crop: float = 0.9,
        cache_bytes: int = 3 * 2**30,
        length: int = 1_000_000,
    ) -> None:
        """Mix `sources` in proportion to `weights`.

        Args:
            frames, size: T and S of the clips.
            seed: not negative; another one gives other clips.
            strides: step between video frames, one drawn per clip.
            flip: mirror half of the clips.
            still_share: share of the video clips that show one frame all the time.
            jitter: strength of random brightness, contrast and gamma; 0 leaves colours alone, 0.2 is mild.
            text_share: share of the clips that have text written over them, after all else.
            reversed_share: fraction of clips that are played backwards.
            cut_share: fraction of clips that cut to another clip at a random frame.
            least_crop: side of the smallest crop of a video, as a fraction of S; crops smaller than S are enlarged.
            cache_bytes: decoded frames kept in memory by every process.
            length: what `len` says; indices beyond it work too.

        Raises:
            ValueError: an argument is out of its range.
        """
        if not sources or len(sources) != len(weights) or min(weights) < 0 or not sum(weights):
            raise ValueError(f"expected one weight >= 0 per source, not all 0; got {len(sources)} sources, {weights}")
        if min(frames, size, length, *strides, seed + 1) < 1:
            raise ValueError(f"{frames=}, {size=}, {length=}, {strides=} must be at least 1 and {seed=} at least 0")
        self.sources = list(sources)
        self.files = sum(source.listed - len(source.broken) for source in sources)
        self.seed = seed
        self.flip = flip
        self.jitter = jitter
        self.text_share = share("text_share", text_share)
        self.reversed_share = share("reversed_share", reversed_share)
        self.cut_share = share("cut_share", cut_share)
        self.length = length
        least = share("least_crop", least_crop)
        still = share("still_share", still_share)
        self.shape = ClipShape(frames=frames, size=size, strides=tuple(strides), still_share=still, least_crop=least)
        self._probabilities = np.array(weights, dtype=np.float64) / sum(weights)
        self._cache = FrameCache(cache_bytes)

    def __len__(self) -> int:
        return self.length

    @property
    def broken(self) -> dict[str, str]:
        """Files that could not be read so far in this process, with the reason."""
        return {path: reason for source in self.sources for path, reason in source.broken.items()}

    def __getitem__(self, index: int) -> Tensor:
        """Clip `index >= 0`: float32 `[3, T, S, S]` in [0, 1]."""
        if index < 0:
            raise IndexError(f"clip {index} does not exist: indices start at 0")
        rng = np.random.default_rng((self.seed, index))
        clip = self._scene(rng)
        if self.cut_share and rng.random() < self.cut_share:
            cut = int(rng.integers(1, self.shape.frames))
            clip = torch.cat([clip[:, :cut], self._scene(rng)[:, cut:]], 1)
        clip = (_recolour(clip, rng, self.jitter) if self.jitter else clip).clamp(0, 1).contiguous()
        return write_over(clip, rng) if self.text_share and rng.random() < self.text_share else clip

    def _scene(self, rng: np.random.Generator) -> Tensor:
        """Draw a clip of one source, which may be mirrored or reversed."""
        source = self.sources[rng.choice(len(self.sources), p=self._probabilities)]
        mirrored = self.flip and rng.random() < 0.5
        clip = source.clip(rng, self.shape, self._cache)
        clip = clip.flip(-1) if mirrored else clip
        backwards = self.reversed_share and rng.random() < self.reversed_share
        return clip.flip(1) if backwards else clip


def fixed_clips(folder: Folders, *, frames: int, size: int, per_video: int) -> Tensor:
    """Clips for evaluation, the same every time: the first ones of each video, in the order of the paths.

    The short side is resized to S (antialiased bilinear), then the centre is cropped. A video gives as many whole clips
    as it has frames for, up to `per_video`; one that is shorter than a clip repeats its last frame.

    Returns:
        float32 `[N, 3, T, S, S]` in [0, 1].

    Raises:
        FileNotFoundError: a folder does not exist.
        ValueError: there is no readable video.
    """
    clips: list[Tensor] = []
    broken: dict[str, str] = {}
    for path in (entry.path for entry in find_entries(folder, VIDEO_SUFFIXES)):
        try:
            video = decode(path, frames * per_video).frames
        except UNREADABLE as error:
            broken[str(path)] = reason(error)
            logger.warning("skipping %s: %s", path, reason(error))
            continue
        count = max(1, len(video) // frames)
        padded = video[np.minimum(np.arange(count * frames), len(video) - 1)]
        clips += [_centre_crop(part, size) for part in np.split(padded, count)]
    if not clips:
        raise ValueError(nothing("video", folder, broken))
    return torch.stack(clips)


def _centre_crop(frames: Frames, size: int) -> Tensor:
    height, width = frames.shape[1:3]
    short = min(height, width)
    clip = resize(frames, max(size, round(height * size / short)), max(size, round(width * size / short)))
    top, left = (clip.shape[2] - size) // 2, (clip.shape[3] - size) // 2
    return clip[:, :, top : top + size, left : left + size].clamp(0, 1)


def _recolour(clip: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    gamma, contrast = np.exp(rng.uniform(-strength, strength, 2))
    brightness = rng.uniform(-strength, strength) / 4
    mean = clip.mean()
    return ((clip.clamp(0, 1) ** gamma - mean) * contrast + mean + brightness).clamp(0, 1)
