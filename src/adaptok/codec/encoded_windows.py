"""Cutting a video into clips, and joining what they are encoded to.

Legend: `b` windows of time, `n` tiles, `C` channels, `t` frames, `h` and `w` size of the canvas, `g` blocks of a clip,
`K` latents per block, `L` candidate lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import ClipLayout, LengthPolicy, Lengths, Scores
from adaptok.codec.token_file import VideoTokens
from adaptok.codec.token_info import TokenInfo
from adaptok.config.tokenizer import TokenizerConfig
from adaptok.video.clips import iter_clips, pad_clip
from adaptok.video.geometry import Geometry
from adaptok.video.sources import FrameSource


class EncodedWindows(NamedTuple):
    """Consecutive windows of a video, encoded. Blocks are in order of time, and at equal time in order of tiles.

    frames: Number of frames that earlier windows lack, without padding.
    ids: `[N, K]` of its N blocks.
    scores: `[N, L]`, if they are needed.
    lengths: `[N]`, if the policy is causal.
    """

    frames: int
    ids: NDArray[np.uint16]
    scores: Scores | None
    lengths: Lengths | None


def iter_windows(
    source: FrameSource, geometry: Geometry, config: TokenizerConfig, batch: int, overlap: int = 0
) -> Iterator[tuple[Tensor, int]]:
    """Cut a video into batches of windows of time.

    Args:
        source: The video.
        geometry: How its frames are fitted to the canvas.
        config: Configuration of the tokenizer, which states the frames of a clip.
        batch: Largest number of windows in a batch.
        overlap: Frames that neighbouring windows share.

    Yields:
        Windows `[b, C, t, h, w]` and the number of frames in them that earlier ones lack. Only in the last batch t may
        be less than a clip; there the last frame is repeated up to a whole block.
    """
    clips = iter_clips(source.frames, geometry.apply, config.frames, stride=config.frames - overlap)
    # after the last whole window, only the frames that it shares with the next one may be left
    kept = (clip for start, clip in clips if start == 0 or clip.shape[1] > overlap)
    last: Tensor | None = None
    shared = 0
    while group := list(islice(kept, batch)):
        if group[-1].shape[1] < config.frames:
            last = group.pop()
        if group:
            yield torch.stack(group), len(group) * (config.frames - overlap) + overlap - shared
            shared = overlap
    if last is not None:
        count = last.shape[1]
        yield pad_clip(last, count + -count % config.temporal_patch_size)[None], count - shared


def split_tiles(windows: Tensor, geometry: Geometry) -> Tensor:
    """Cut windows `[b, C, t, h, w]` into clips `[b·n, C, t, S, S]`."""
    return torch.cat([geometry.split(window) for window in windows])


def by_time(values: NDArray[Any], tiles: int) -> NDArray[Any]:
    """Reorder values `[b·n, g, ...]` of clips to values of blocks `[b·g·n, ...]`, in order of time, then of tiles."""
    blocks = values.reshape(-1, tiles, *values.shape[1:]).swapaxes(1, 2)
    return blocks.reshape(-1, *values.shape[2:])


def by_tile(values: Tensor, blocks: int, tiles: int) -> Tensor:
    """Reorder values `[b·g·n, ...]` of blocks to values of clips `[b·n, g, ...]`: the inverse of `by_time`."""
    return values.unflatten(0, (-1, blocks, tiles)).transpose(1, 2).flatten(0, 1)


def join_windows(
    windows: Sequence[EncodedWindows], policy: LengthPolicy, layout: ClipLayout, info: TokenInfo, keep_scores: bool
) -> VideoTokens:
    """Join the windows of a video, and choose the lengths that are not chosen yet."""
    ids = np.concatenate([each.ids for each in windows])
    scored = [each.scores for each in windows if each.scores is not None]
    scores = np.concatenate(scored) if scored else None
    if policy.causal:
        lengths = np.concatenate([each.lengths for each in windows if each.lengths is not None])
    else:
        lengths = policy.lengths(scores, len(ids), layout, info.tiles)
    kept = np.arange(ids.shape[1]) < lengths[:, None]
    return VideoTokens(ids[kept], lengths, info, scores if keep_scores else None)
