"""Training clips that are cropped on the GPU from frames in its memory.

A GPU trains the bundled tokenizer on about a thousand clips per second, more than processors can crop. Here, all frames
lie in the memory of the GPU, processors only draw which part of which frames a clip shows, and the GPU samples it.

Legend: `B` clips, `T` frames, `S` side of a clip in pixels, `H`, `W` size of a stored frame.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from adaptok.data.decoding import FrameCache, decode
from adaptok.data.manifests import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_entries
from adaptok.data.synthetic.camera import photograph_homographies
from adaptok.data.synthetic.drawings import Drawings, add_caption
from adaptok.data.synthetic.shapes import CLASSES, draw_shape_clip
from adaptok.data.videos import ClipSpec

FRAMES, SIZE = 16, 128
PROCESSES = multiprocessing.get_context("forkserver")
"""How processes start: a fork of this process would inherit locks of its threads."""
SHORT_SIDE = 144
"""Short side of stored video frames."""
SHRINKING = (1.0, 0.7, 0.5, 0.35)
"""Sizes at which a photograph is stored, so that a view of it need not be reduced much, which would alias."""
STRIDES = (1, 1, 2, 3)
MIN_CROP = 0.8
SHARES = {"video": 0.64, "photograph": 0.24, "drawing": 0.12}
"""Fraction of the clips of each kind."""
STILL, REVERSED, CUT, CAPTION, COLOUR = 0.03, 0.3, 0.05, 0.3, 0.2
"""Fractions of still video clips, reversed clips, clips with a cut, drawings with a caption, and clips of changed
colours."""


class Stored(NamedTuple):
    """Frames of one video, photograph or drawing in the store."""

    offset: int
    frames: int
    height: int
    width: int


@dataclass
class FrameStore:
    """All frames, uint8, one after the other."""

    values: Tensor
    videos: list[Stored]
    photographs: list[tuple[Stored, ...]]
    """Each photograph at all sizes of SHRINKING."""
    drawings: list[Stored]

    @classmethod
    def build(cls, data: Path, drawings: int, workers: int, device: torch.device) -> FrameStore:
        """Decode all videos and photographs of a folder, and draw synthetic clips.

        Args:
            data: folder with `videos/train` and `images`.
            drawings: number of drawn clips.
            workers: number of processes.
            device: device that holds the frames.
        """
        videos = [entry.path for entry in find_entries((str(data / "videos" / "train"),), VIDEO_SUFFIXES)]
        images = [entry.path for entry in find_entries((str(data / "images"),), IMAGE_SUFFIXES)]
        with ProcessPoolExecutor(workers, PROCESSES, torch.set_num_threads, (1,)) as processes:
            decoded = processes.map(_decode, videos)
            pictures = processes.map(_sizes, images, chunksize=8)
            drawn = processes.map(draw, range(drawings), chunksize=16)
            pieces, offset = list[Tensor](), 0

            def store(frames: NDArray[np.uint8] | Tensor) -> Stored:
                nonlocal offset
                tensor = torch.as_tensor(frames)
                pieces.append(tensor.to(device).flatten())
                offset += tensor.numel()
                return Stored(offset - tensor.numel(), *tensor.shape[:3])

            stored = [store(frames) for frames in decoded]
            photographs = [tuple(store(picture) for picture in sizes) for sizes in pictures]
            synthetic = [store(clip) for clip in drawn]
        return cls(torch.cat(pieces), stored, photographs, synthetic)


def draw(index: int) -> NDArray[np.uint8]:
    """Draw a synthetic clip uint8 `[T, S, S, 3]`; every third shows a moving shape of the generator's classes."""
    rng = np.random.default_rng((45, index))
    if index % 3 == 0:
        clip = draw_shape_clip(45, index, CLASSES[rng.integers(len(CLASSES))], FRAMES, SIZE)
    else:
        clip = Drawings().clip(rng, ClipSpec(frames=FRAMES, size=SIZE), FrameCache(0))
        clip = add_caption(clip.contiguous(), rng) if rng.random() < CAPTION else clip
    return (clip.permute(1, 2, 3, 0) * 255).round().byte().numpy()


def _decode(path: Path) -> NDArray[np.uint8]:
    """Decode a video: uint8 `[N, H, W, 3]`."""
    return decode(path, 100_000, SHORT_SIDE).frames


def _sizes(path: Path) -> list[Tensor]:
    """Decode a photograph at all sizes of SHRINKING: uint8 `[1, H, W, 3]` each."""
    whole = torch.from_numpy(decode(path, 1, 2 * SIZE).frames[:1]).permute(0, 3, 1, 2).float()
    sizes = []
    for factor in SHRINKING:
        shape = [round(side * factor) for side in whole.shape[2:]]
        reduced = F.interpolate(whole, shape, mode="bilinear", antialias=True)
        sizes.append(reduced.round().byte().permute(0, 2, 3, 1).contiguous())
    return sizes


class View(NamedTuple):
    """What each frame of a clip shows. Arrays begin with T in a clip, and with B, T in a batch."""

    offset: NDArray[np.int64]
    """`[T]`, first value of the stored frame."""
    size: NDArray[np.int64]
    """`[T, 2]`, its height and width."""
    homography: NDArray[np.float32]
    """`[T, 3, 3]`, maps positions (x, y, 1) in the clip to positions in the stored frame."""

    def map(self, function: Callable[[Any, Any], Any], other: View) -> View:
        """Apply a function to each pair of arrays of this view and another."""
        return View(
            function(self.offset, other.offset),
            function(self.size, other.size),
            function(self.homography, other.homography),
        )


class ViewBatches(torch.utils.data.Dataset[tuple[Tensor, ...]]):
    """Dataset of batches of views; batch `i` is a function of the seed and `i`."""

    def __init__(self, store: FrameStore, batch_size: int, seed: int) -> None:
        self.videos, self.photographs, self.drawings = store.videos, store.photographs, store.drawings
        self.batch_size, self.seed = batch_size, seed
        weights = np.sqrt([video.frames for video in self.videos])
        self.video_weights = np.cumsum(weights / weights.sum())

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        rng = np.random.default_rng((self.seed, index))
        views = [self._clip(rng) for _ in range(self.batch_size)]
        arrays = [torch.from_numpy(np.stack(values)) for values in zip(*views, strict=True)]
        gain = np.ones((self.batch_size, 3), np.float32)
        gamma = np.ones(self.batch_size, np.float32)
        changed = rng.random(self.batch_size) < COLOUR
        shade = rng.uniform(-0.25, 0.25, self.batch_size)[:, None] + rng.normal(0, 0.03, (self.batch_size, 3))
        gain[changed], gamma[changed] = np.exp(shade)[changed], np.exp(rng.uniform(-0.3, 0.3, changed.sum()))
        return (*arrays, torch.from_numpy(gain), torch.from_numpy(gamma))

    def _clip(self, rng: np.random.Generator) -> View:
        view = self._scene(rng)
        if rng.random() < CUT:
            cut, other = int(rng.integers(1, FRAMES)), self._scene(rng)
            view = view.map(lambda own, new: np.concatenate([own[:cut], new[cut:]]), other)
        return view

    def _scene(self, rng: np.random.Generator) -> View:
        kind = rng.choice(list(SHARES), p=list(SHARES.values()))
        view = self._photograph(rng) if kind == "photograph" else self._video(rng, kind == "drawing")
        if rng.random() < 0.5:
            mirror = np.array([[-1, 0, SIZE], [0, 1, 0], [0, 0, 1]], np.float32)
            view = view._replace(homography=view.homography @ mirror)
        return view.map(lambda own, _: own[::-1], view) if rng.random() < REVERSED else view

    def _photograph(self, rng: np.random.Generator) -> View:
        sizes = self.photographs[rng.integers(len(self.photographs))]
        whole = sizes[0]
        homography, scale = photograph_homographies((whole.width, whole.height), rng, FRAMES, SIZE)
        if rng.random() < 0.12:
            homography = np.repeat(homography[:1], FRAMES, 0)
        level = next((i for i in reversed(range(len(SHRINKING))) if SHRINKING[i] >= 0.8 * scale), 0)
        chosen = sizes[level]
        shrink = np.diag([chosen.width / whole.width, chosen.height / whole.height, 1.0])
        return self._view(chosen, np.zeros(FRAMES, np.int64), shrink @ homography)

    def _video(self, rng: np.random.Generator, drawn: bool) -> View:
        if drawn:
            video, stride = self.drawings[rng.integers(len(self.drawings))], 1
        else:
            index = min(int(np.searchsorted(self.video_weights, rng.random())), len(self.videos) - 1)
            video, stride = self.videos[index], STRIDES[rng.integers(len(STRIDES))]
        stride = 0 if rng.random() < STILL else stride
        first = int(rng.integers(max(1, video.frames - (FRAMES - 1) * stride)))
        frames = np.minimum(first + np.arange(FRAMES) * stride, video.frames - 1)
        short = min(video.height, video.width)
        side = short if drawn else min(rng.uniform(SIZE * MIN_CROP, short), short)
        left, top = rng.random(2) * (video.width - side, video.height - side)
        crop = np.array([[side / SIZE, 0, left], [0, side / SIZE, top], [0, 0, 1]])
        return self._view(video, frames, np.repeat(crop[None], FRAMES, 0))

    @staticmethod
    def _view(stored: Stored, frames: NDArray[np.int64], homography: NDArray[np.float64]) -> View:
        offset = stored.offset + frames * (stored.height * stored.width * 3)
        size = np.repeat([[stored.height, stored.width]], FRAMES, 0)
        return View(offset, size, homography.astype(np.float32))


def render(values: Tensor, offset: Tensor, size: Tensor, homography: Tensor, gain: Tensor, gamma: Tensor) -> Tensor:
    """Sample clips float32 `[B, 3, T, S, S]` in [0, 1] from stored frames, bilinearly.

    Args:
        values: uint8, all stored frames.
        offset: int64 `[B, T]`, first value of each frame.
        size: int64 `[B, T, 2]`, height and width.
        homography: float32 `[B, T, 3, 3]`.
        gain: float32 `[B, 3]`, factors of the colours.
        gamma: float32 `[B]`, exponents of the values.
    """
    centres = torch.arange(SIZE, device=values.device) + 0.5
    x, y = centres[None, :], centres[:, None]
    h = homography[..., None, None]  # [B, T, 3, 3, 1, 1]
    depth = h[:, :, 2, 0] * x + h[:, :, 2, 1] * y + h[:, :, 2, 2]
    height, width = size[..., 0, None, None], size[..., 1, None, None]
    column = ((h[:, :, 0, 0] * x + h[:, :, 0, 1] * y + h[:, :, 0, 2]) / depth - 0.5).clamp(min=0)
    row = ((h[:, :, 1, 0] * x + h[:, :, 1, 1] * y + h[:, :, 1, 2]) / depth - 0.5).clamp(min=0)
    column, row = torch.minimum(column, (width - 1).float()), torch.minimum(row, (height - 1).float())
    left, top = column.floor(), row.floor()
    right_share, lower_share = (column - left)[:, None], (row - top)[:, None]
    left, top = left.long(), top.long()
    right, bottom = torch.minimum(left + 1, width - 1), torch.minimum(top + 1, height - 1)
    colours = torch.arange(3, device=values.device).view(1, 3, 1, 1, 1)

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        index = offset[..., None, None] + (rows * width + columns) * 3
        return values[index[:, None] + colours].float()  # [B, 3, T, S, S]

    upper = torch.lerp(at(top, left), at(top, right), right_share)
    lower = torch.lerp(at(bottom, left), at(bottom, right), right_share)
    clips = torch.lerp(upper, lower, lower_share) / 255
    clips = clips.pow(gamma.view(-1, 1, 1, 1, 1)) * gain.view(-1, 3, 1, 1, 1)
    return clips.clamp(0, 1)
