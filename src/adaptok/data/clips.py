"""Random training clips from a mixture of sources, and fixed clips for evaluation.

Legend: `T` frames, `S` side of a clip in pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.data.augmentation import centre_crop, check_fraction, jitter_colours
from adaptok.data.decoding import DECODING_ERRORS, FrameCache, decode, describe_error
from adaptok.data.manifests import VIDEO_SUFFIXES, Paths, find_entries, no_readable_message
from adaptok.data.statistics import collect_statistics
from adaptok.data.synthetic.drawings import add_caption
from adaptok.data.videos import ClipSpec

logger = logging.getLogger(__name__)


class ClipSource(Protocol):
    """A source that clips can be drawn from."""

    num_files: int
    """Number of files, broken ones included."""
    broken: dict[str, str]
    """Files that could not be read so far, with the reason."""

    def clip(self, rng: np.random.Generator, spec: ClipSpec, cache: FrameCache) -> Tensor:
        """Draw a clip `[3, T, S, S]` in [0, 1]. It depends on the state of `rng` only."""


class VideoSource(ClipSource, Protocol):
    """A source whose videos can be visited one by one."""

    def __len__(self) -> int:
        """Number of videos that were readable when the source was opened."""

    def clip_of(self, index: int, rng: np.random.Generator, spec: ClipSpec, cache: FrameCache) -> Tensor:
        """Draw a clip `[3, T, S, S]` in [0, 1] of video `index`, or of a random one if that video is broken."""


class ClipMixture(torch.utils.data.Dataset[Tensor]):
    """Dataset of random clips from several sources.

    Clip `i` is a function of the seed and `i` alone. The number of workers, the state of the cache and resuming a run
    do not change it. Read it in order, without a shuffling sampler: the clips are already random.
    """

    def __init__(
        self,
        sources: Sequence[ClipSource],
        weights: Sequence[float],
        *,
        frames: int = 16,
        size: int = 128,
        seed: int = 0,
        start: Literal["random", "first"] = "random",
        strides: Sequence[int] = (1, 1, 2),
        crop: Literal["random", "center"] = "random",
        flip: bool = True,
        still_fraction: float = 0.03,
        jitter: float = 0.0,
        text_fraction: float = 0.0,
        reversed_fraction: float = 0.0,
        cut_fraction: float = 0.0,
        min_crop: float = 0.9,
        cache_bytes: int = 3 * 2**30,
        length: int = 1_000_000,
    ) -> None:
        """Mix `sources` in proportion to `weights`.

        Args:
            frames, size, start, strides, crop, still_fraction, min_crop: As for `ClipSpec`.
            seed: Seed of all random draws, not negative.
            flip: Mirror half of the clips.
            jitter: Strength of random brightness, contrast and gamma. 0 leaves colours alone, 0.2 is mild.
            text_fraction: Fraction of the clips that get a caption, drawn after all other augmentation.
            reversed_fraction: Fraction of the clips that are played backwards.
            cut_fraction: Fraction of the clips that cut to another clip at a random frame.
            cache_bytes: Size of the cache of decoded frames in each process.
            length: Value of `len`. Larger indices work too.

        Raises:
            ValueError: An argument is out of its range.
        """
        if not sources or len(sources) != len(weights) or min(weights) < 0 or not sum(weights):
            raise ValueError(f"expected one weight >= 0 per source, not all 0; got {len(sources)} sources, {weights}")
        if min(frames, size, length, *strides, seed + 1) < 1:
            raise ValueError(f"{frames=}, {size=}, {length=}, {strides=} must be at least 1 and {seed=} at least 0")
        self.sources = list(sources)
        self.num_readable_files = sum(source.num_files - len(source.broken) for source in sources)
        self.seed, self.flip, self.jitter, self.length = seed, flip, jitter, length
        self.text_fraction = check_fraction("text_fraction", text_fraction)
        self.reversed_fraction = check_fraction("reversed_fraction", reversed_fraction)
        self.cut_fraction = check_fraction("cut_fraction", cut_fraction)
        least, still = check_fraction("min_crop", min_crop), check_fraction("still_fraction", still_fraction)
        options: dict[str, Any] = {
            "frames": frames,
            "size": size,
            "start": start,
            "strides": tuple(strides),
            "crop": crop,
        }
        self.spec = ClipSpec(**options, still_fraction=still, min_crop=least)
        self._probabilities = np.array(weights, dtype=np.float64) / sum(weights)
        self._cache = FrameCache(cache_bytes)

    def __len__(self) -> int:
        return self.length

    @property
    def broken(self) -> dict[str, str]:
        """Files that could not be read so far in this process, with the reason."""
        return {path: reason for source in self.sources for path, reason in source.broken.items()}

    def __getitem__(self, index: int) -> Tensor:
        """Return clip `index >= 0`: float32 `[3, T, S, S]` in [0, 1]."""
        if index < 0:
            raise IndexError(f"clip {index} does not exist: indices start at 0")
        rng = np.random.default_rng((self.seed, index))
        clip = self._draw_scene(rng, index)
        if self.cut_fraction and rng.random() < self.cut_fraction:
            cut = int(rng.integers(1, self.spec.frames))
            clip = torch.cat([clip[:, :cut], self._draw_scene(rng, None)[:, cut:]], 1)
        clip = (jitter_colours(clip, rng, self.jitter) if self.jitter else clip).clamp(0, 1).contiguous()
        return add_caption(clip, rng) if self.text_fraction and rng.random() < self.text_fraction else clip

    def _draw_scene(self, rng: np.random.Generator, index: int | None) -> Tensor:
        """Draw a clip, and mirror or reverse it at random. The clip with an index is drawn by `_draw_clip`, others from
        any source."""
        source = self.sources[rng.choice(len(self.sources), p=self._probabilities)]
        mirrored = self.flip and rng.random() < 0.5
        clip = source.clip(rng, self.spec, self._cache) if index is None else self._draw_clip(source, rng, index)
        clip = clip.flip(-1) if mirrored else clip
        is_reversed = self.reversed_fraction and rng.random() < self.reversed_fraction
        return clip.flip(1) if is_reversed else clip

    def _draw_clip(self, source: ClipSource, rng: np.random.Generator, index: int) -> Tensor:
        """Draw clip `index` from a source."""
        return source.clip(rng, self.spec, self._cache)


class VideoEpochs(ClipMixture):
    """Dataset that visits every video of a source once per epoch, each epoch in a random order of its own.

    Clip `i` belongs to epoch `i // len(source)`. It is a function of the seed and `i` alone. A video that turns out to
    be broken is replaced by a random one.
    """

    def __init__(self, source: VideoSource, **options: Any) -> None:
        """Visit the videos of `source`. Options and errors are those of `ClipMixture`."""
        super().__init__([source], [1.0], **options)
        self._videos = source
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.arange(0))

    def video_of(self, index: int) -> int:
        """Return the index in the source of the video that clip `index` is taken from."""
        epoch, place = divmod(index, len(self._videos))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng((self.seed, epoch)).permutation(len(self._videos))
        return int(self._order[1][place])

    def _draw_clip(self, source: ClipSource, rng: np.random.Generator, index: int) -> Tensor:
        return self._videos.clip_of(self.video_of(index), rng, self.spec, self._cache)


def fixed_clips(folder: Paths, *, frames: int, size: int, per_video: int) -> Tensor:
    """Read the same clips every time: the first ones of each video, in the order of the paths.

    The short side is resized to S (antialiased bilinear), then the center is cropped. A video yields its whole clips,
    up to `per_video`. A video shorter than a clip yields one clip that repeats its last frame.

    Returns:
        float32 `[N, 3, T, S, S]` in [0, 1].

    Raises:
        FileNotFoundError: A folder does not exist.
        ValueError: No video is readable.
    """
    clips: list[Tensor] = []
    broken: dict[str, str] = {}
    for path in (entry.path for entry in find_entries(folder, VIDEO_SUFFIXES)):
        try:
            video = decode(path, frames * per_video).frames
        except DECODING_ERRORS as error:
            broken[str(path)] = describe_error(error)
            logger.warning("skipping %s: %s", path, broken[str(path)])
            continue
        count = max(1, len(video) // frames)
        padded = video[np.minimum(np.arange(count * frames), len(video) - 1)]
        clips += [centre_crop(part, size) for part in np.split(padded, count)]
    if not clips:
        raise ValueError(no_readable_message("video", folder, broken))
    return torch.stack(clips)


class FirstClips(torch.utils.data.Dataset[Tensor]):
    """The first clip of each video, in the order of the paths, decoded whenever it is read.

    Clips are cropped and padded as by `fixed_clips`. A video that turns out to be broken is replaced by the next one.
    """

    def __init__(self, folder: Paths, *, frames: int, size: int, count: int | None = None) -> None:
        """List the videos.

        Args:
            folder: As for `find_entries`.
            frames, size: T and S.
            count: Largest number of videos, which are spread evenly over all. None uses all.

        Raises:
            FileNotFoundError: A folder does not exist.
            ValueError: No video is readable.
        """
        entries = collect_statistics(find_entries(folder, VIDEO_SUFFIXES))
        paths = [entry.path for entry in entries if entry.error is None]
        if not paths:
            broken = {str(entry.path): entry.error for entry in entries if entry.error is not None}
            raise ValueError(no_readable_message("video", folder, broken))
        chosen = np.linspace(0, len(paths) - 1, min(len(paths), count or len(paths))).round().astype(int)
        self.paths = [paths[index] for index in chosen]
        self.frames, self.size = frames, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Return clip `index`: float32 `[3, T, S, S]` in [0, 1]."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} does not exist: there are {len(self)}")
        for path in (*self.paths[index:], *self.paths[:index]):
            try:
                video = decode(path, self.frames).frames
            except DECODING_ERRORS as error:
                logger.warning("skipping %s: %s", path, describe_error(error))
                continue
            return centre_crop(video[np.minimum(np.arange(self.frames), len(video) - 1)], self.size)
        raise ValueError(f"none of {len(self)} validation videos can be read any more, such as {self.paths[0]}")
