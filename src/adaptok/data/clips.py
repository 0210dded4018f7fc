"""Random training clips from folders of videos and photographs, and fixed ones for evaluation.

Legend: `T` frames, `S` pixels, `H`, `W` size of a source picture.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.video.reformatter import Interpolation
from numpy.typing import NDArray
from torch import Tensor

from adaptok.data.camera import photograph_clip
from adaptok.data.manifests import read_manifest
from adaptok.video.reading import decoded_frames

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})

_SEGMENT_FRAMES = 512  # a longer video is decoded and cached in pieces, so that memory does not grow with its length
_NEAREST = 0.9  # the smallest crop, as a share of the clip's side: smaller ones would only show blur
_ATTEMPTS = 100

Folders = str | Path | Sequence[str | Path]
Frames = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class ClipShape:
    """What a source is asked for.

    frames, size: T and S.
    strides: a video is sampled at every first, second … frame; one is drawn per clip.
    still_share: share of the video clips that show one frame all the time.
    """

    frames: int
    size: int
    strides: tuple[int, ...] = (1,)
    still_share: float = 0.0


class FrameCache:
    """Decoded frames by key, the least recently used dropped first once they fill `capacity` bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        self._entries: OrderedDict[str, Frames] = OrderedDict()

    def get(self, key: str, load: Callable[[], Frames]) -> Frames:
        """The entry of this key, loaded if it is not there."""
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        frames = load()
        if frames.nbytes <= self.capacity:
            self._entries[key] = frames
            self.used += frames.nbytes
        while self.used > self.capacity:
            self.used -= self._entries.popitem(last=False)[1].nbytes
        return frames


class ClipSource(Protocol):
    """Something that clips can be drawn from. `listed` files, of which some may be broken."""

    @property
    def listed(self) -> int: ...

    @property
    def broken(self) -> dict[str, str]:
        """Files that could not be read, with the reason."""

    def clip(self, rng: np.random.Generator, shape: ClipShape, cache: FrameCache) -> Tensor:
        """A clip `[3, T, S, S]` in [0, 1] that depends on the state of `rng` only."""


class _Files:
    """Files of a kind, of which the unreadable ones are reported once and left out.

    Attributes:
        broken: those that could not be read so far, with the reason.
        listed: how many there are, broken ones included.
    """

    def __init__(self) -> None:
        self.broken: dict[str, str] = {}
        self.listed = 0

    def _exclude(self, path: Path, reason: str) -> None:
        if str(path) not in self.broken:
            self.broken[str(path)] = reason
            logger.warning("skipping %s: %s", path, reason)

    def _load(self, key: str, path: Path, cache: FrameCache, load: Callable[[], Frames]) -> Frames | None:
        """The frames, or None where the file is broken: the caller then draws again, from whatever process it asks."""
        if str(path) in self.broken:
            return None
        try:
            return cache.get(key, load)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._exclude(path, _reason(error))
            return None


@dataclass(frozen=True)
class _Segment:
    """Some consecutive frames of a video: from `start` seconds on (None: from its beginning), `frames` of them."""

    path: Path
    start: Fraction | None
    frames: int


class VideoFolder(_Files):
    """The videos in some folders and the folders within.

    A video is drawn with a probability in proportion to the square root of its number of frames: long ones more often,
    but not at the cost of variety.
    """

    def __init__(self, folders: Folders) -> None:
        """Look through the folders and open every video once.

        Raises:
            FileNotFoundError: a folder does not exist.
            ValueError: there is no readable video.
        """
        super().__init__()
        self.segments: list[_Segment] = []
        weights: list[float] = []
        for path in find_files(folders, VIDEO_SUFFIXES):
            self.listed += 1
            segments = self._survey(path)
            if not segments:
                continue
            total = sum(segment.frames for segment in segments)
            self.segments += segments
            weights += [total**0.5 * segment.frames / total for segment in segments]
        if not self.segments:
            raise ValueError(_nothing("video", folders, self.broken))
        self._probabilities = np.array(weights) / sum(weights)

    def __len__(self) -> int:
        return len({segment.path for segment in self.segments})

    def _survey(self, path: Path) -> list[_Segment]:
        try:
            frames, rate = _measure(path)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._exclude(path, _reason(error))
            return []
        starts = range(0, frames, _SEGMENT_FRAMES)
        return [_Segment(path, s / rate if s else None, min(_SEGMENT_FRAMES, frames - s)) for s in starts]

    def clip(self, rng: np.random.Generator, shape: ClipShape, cache: FrameCache) -> Tensor:
        """A random crop of random consecutive frames; see `ClipSource`."""
        for _ in range(_ATTEMPTS):
            index = rng.choice(len(self.segments), p=self._probabilities)
            video = self._frames(int(index), shape.size, cache)
            if video is not None:
                return _crop_clip(video, rng, shape)
        raise ValueError(f"{_ATTEMPTS} videos in a row could not be read; the last ones: {list(self.broken)[-3:]}")

    def _frames(self, index: int, size: int, cache: FrameCache) -> Frames | None:
        segment = self.segments[index]
        short = size * 9 // 8
        key = f"{segment.path}#{segment.start}@{short}"
        return self._load(key, segment.path, cache, lambda: _decode(segment, short))


class ImageFolder(_Files):
    """The photographs in some folders and the folders within, as clips under a moving camera."""

    def __init__(self, folders: Folders, *, still_share: float = 0.12, layered_share: float = 0.25) -> None:
        """List the photographs; they are read when they are drawn.

        Args:
            still_share: share of the clips in which nothing moves.
            layered_share: share of the moving clips in which parts of a second photograph move in front.

        Raises:
            FileNotFoundError: a folder does not exist.
            ValueError: there is no photograph, or the first few cannot be read.
        """
        super().__init__()
        self.paths = list(find_files(folders, IMAGE_SUFFIXES))
        self.listed = len(self.paths)
        self.still_share = _share("still_share", still_share)
        self.layered_share = _share("layered_share", layered_share)
        if not any(self._picture(path, 8, FrameCache(0)) is not None for path in self.paths):
            raise ValueError(_nothing("image", folders, self.broken))

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
        whole = _Segment(path, None, 1)
        frames = self._load(f"{path}@{2 * size}", path, cache, lambda: _decode(whole, 2 * size))
        return None if frames is None else frames[0]


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
        self.length = length
        share = _share("still_share", still_share)
        self.shape = ClipShape(frames=frames, size=size, strides=tuple(strides), still_share=share)
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
        source = self.sources[rng.choice(len(self.sources), p=self._probabilities)]
        mirrored = self.flip and rng.random() < 0.5
        clip = source.clip(rng, self.shape, self._cache)
        clip = clip.flip(-1) if mirrored else clip
        return (_recolour(clip, rng, self.jitter) if self.jitter else clip).clamp(0, 1).contiguous()


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
    for path in find_files(folder, VIDEO_SUFFIXES):
        try:
            video = _decode(_Segment(path, None, frames * per_video), None)
        except (av.FFmpegError, OSError, ValueError) as error:
            broken[str(path)] = _reason(error)
            logger.warning("skipping %s: %s", path, _reason(error))
            continue
        count = max(1, len(video) // frames)
        padded = video[np.minimum(np.arange(count * frames), len(video) - 1)]
        clips += [_centre_crop(part, size) for part in np.split(padded, count)]
    if not clips:
        raise ValueError(_nothing("video", folder, broken))
    return torch.stack(clips)


def find_files(sources: Folders, suffixes: frozenset[str]) -> Iterator[Path]:
    """Files with one of these suffixes: in folders, searched recursively and in order, or listed in CSV manifests.

    Raises:
        FileNotFoundError: a folder or manifest does not exist.
        ValueError: a file is no manifest.
    """
    for source in [sources] if isinstance(sources, str | Path) else sources:
        source = Path(source)
        if source.is_dir():
            paths = (path for path in source.rglob("*") if path.suffix.lower() in suffixes)
            yield from sorted(path for path in paths if path.is_file())
        elif not source.exists():
            raise FileNotFoundError(f"{source}: no such folder or manifest")
        elif source.suffix.lower() == ".csv":
            yield from (entry.path for entry in read_manifest(source) if entry.path.suffix.lower() in suffixes)
        else:
            raise ValueError(f"{source}: expected a folder, or a CSV manifest (.csv)")


def _nothing(kind: str, folders: Folders, broken: dict[str, str]) -> str:
    places = folders if isinstance(folders, str | Path) else ", ".join(map(str, folders))
    first = "".join(f"; {path}: {reason}" for path, reason in list(broken.items())[:1])
    return f"no readable {kind} in {places} ({len(broken)} broken{first})"


def _share(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must be between 0 and 1")
    return value


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _measure(path: Path) -> tuple[int, Fraction]:
    """Number of frames and frame rate; the first frame is decoded to see that it can be."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("there is no picture in it")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if next(decoded_frames(container, stream, lambda _: None), None) is None:
            raise ValueError("no frame could be decoded")
        rate = stream.average_rate or Fraction(25)
        frames = stream.frames or round(float(container.duration or 0) / av.time_base * rate)
    return max(1, frames), rate


def _decode(segment: _Segment, short_side: int | None) -> Frames:
    """Frames `[<=segment.frames, H, W, 3]`, scaled down so that the short side is at most `short_side`.

    Damaged parts are left out.
    """
    frames: list[Frames] = []
    damage: list[str] = []
    with av.open(str(segment.path)) as container:
        if not container.streams.video:
            raise ValueError("there is no picture in it")
        for frame in _decoded(container, segment.start, damage.append):
            frames.append(_picture(frame, short_side))
            if len(frames) == segment.frames:
                break
    if damage and frames:
        logger.warning("%s is damaged, %d frames are used: %s", segment.path, len(frames), damage[0])
    same = [frame for frame in frames if frame.shape == frames[0].shape]
    if not same:
        raise ValueError(f"no frame could be decoded ({damage[0]})" if damage else "no frame could be decoded")
    return np.stack(same)


def _decoded(
    container: av.container.InputContainer, start: Fraction | None, note: Callable[[str], None]
) -> Iterator[av.VideoFrame]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    if start is None or stream.time_base is None:
        yield from decoded_frames(container, stream, note)
        return
    offset = round(start / stream.time_base) + (stream.start_time or 0)
    container.seek(offset, stream=stream)
    for frame in decoded_frames(container, stream, note):
        if frame.pts is None or frame.pts >= offset:
            yield frame


def _picture(frame: av.VideoFrame, short_side: int | None) -> Frames:
    width, height = frame.width, frame.height
    if short_side is not None and min(width, height) > short_side:
        scale = short_side / min(width, height)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
    # AREA averages every source pixel: bilinear scaling of FFmpeg is antialiased too, but blurs more
    area = Interpolation.AREA
    rgb = np.asarray(frame.to_ndarray(format="rgb24", width=width, height=height, interpolation=area), np.uint8)
    return np.rot90(rgb, round(frame.rotation / 90) % 4) if frame.rotation else rgb


def _crop_clip(video: Frames, rng: np.random.Generator, shape: ClipShape) -> Tensor:
    """Random frames and a random square of a video `[N, H, W, 3]`: `[3, T, S, S]`."""
    count, height, width = video.shape[:3]
    stride = shape.strides[rng.integers(len(shape.strides))]
    stride = 0 if rng.random() < shape.still_share else stride
    span = (shape.frames - 1) * stride + 1
    start = int(rng.integers(max(1, count - span + 1)))
    times = np.minimum(start + np.arange(shape.frames) * stride, count - 1)
    short = min(height, width)
    side = int(rng.integers(min(round(shape.size * _NEAREST), short), short + 1))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    times = times if stride else times[:1]
    clip = _resize(video[times, top : top + side, left : left + side], shape.size, shape.size)
    return clip if stride else clip.expand(-1, shape.frames, -1, -1)


def _resize(frames: Frames, height: int, width: int) -> Tensor:
    """`[T, H, W, 3]` to `[3, T, height, width]` in [0, 1], antialiased bilinear."""
    pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    if pictures.shape[2:] != (height, width):
        pictures = F.interpolate(pictures, size=(height, width), mode="bilinear", antialias=True)
    return pictures.transpose(0, 1)


def _centre_crop(frames: Frames, size: int) -> Tensor:
    height, width = frames.shape[1:3]
    short = min(height, width)
    clip = _resize(frames, max(size, round(height * size / short)), max(size, round(width * size / short)))
    top, left = (clip.shape[2] - size) // 2, (clip.shape[3] - size) // 2
    return clip[:, :, top : top + size, left : left + size].clamp(0, 1)


def _recolour(clip: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    gamma, contrast = np.exp(rng.uniform(-strength, strength, 2))
    brightness = rng.uniform(-strength, strength) / 4
    mean = clip.mean()
    return ((clip.clamp(0, 1) ** gamma - mean) * contrast + mean + brightness).clamp(0, 1)
