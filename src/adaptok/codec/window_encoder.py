"""Encoding of windows in batches of clips, which may come from several videos.

Legend: `b` windows of time, `n` tiles, `C` channels, `t` frames, `h` and `w` size of the canvas, `S` pixels per side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, cat

from adaptok.allocation.policy import LengthPolicy, Lengths, Scores
from adaptok.codec.clips import ClipCodec
from adaptok.codec.encoded_windows import EncodedWindows, by_time, split_tiles
from adaptok.codec.streaming import Streaming
from adaptok.video.geometry import Geometry
from adaptok.video.sources import FrameSource


class _Pending(NamedTuple):
    """Windows of a video that wait for a full batch: clips `[b·n, C, t, S, S]`, tiles, and new frames in them."""

    video: int
    clips: Tensor
    tiles: int
    frames: int


class WindowEncoder:
    """Encodes windows of one or several videos in batches of clips.

    Windows of different videos share a batch, unless the policy chooses lengths by batch, so that short videos use the
    device as well as long ones. The results for a video do not depend on the others.

    Args:
        codec: Encoder and scorer.
        policy: How lengths are chosen.
        batch_size: Clips computed at once.
        keep_scores: Whether scores are computed even if the policy does not need them.
        scored_for: Policy that scores are computed for; None is `policy`.
    """

    def __init__(
        self,
        codec: ClipCodec,
        policy: LengthPolicy,
        batch_size: int,
        keep_scores: bool,
        scored_for: LengthPolicy | None = None,
    ) -> None:
        self.codec, self.policy, self.batch_size = codec, policy, batch_size
        self._scored_for = scored_for or policy
        self._scored = policy.needs_scores or (keep_scores and codec.model.scorer is not None)
        self._pending: list[_Pending] = []

    def push(
        self, video: int, windows: Tensor, frames: int, geometry: Geometry
    ) -> Iterator[tuple[int, EncodedWindows]]:
        """Add windows of a video, and yield those that have been encoded, in order, with the number of their video.

        Args:
            video: Number of the video.
            windows: Next windows `[b, C, t, h, w]` of that video.
            frames: Number of frames in them that earlier ones lack, without padding.
            geometry: How the canvas of the video is cut into tiles.
        """
        clips = split_tiles(windows, geometry)
        if self._pending and self._pending[0].clips.shape[2] != clips.shape[2]:
            yield from self.flush()
        self._pending.append(_Pending(video, clips, geometry.tiles, frames))
        if self.policy.causal or sum(len(each.clips) for each in self._pending) >= self.batch_size:
            yield from self.flush()

    def flush(self) -> Iterator[tuple[int, EncodedWindows]]:
        """Encode the windows that are left, and yield them as `push` does."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        batches = [self._encode(clips) for clips in cat([each.clips for each in pending]).split(self.batch_size)]
        ids, scores, lengths = (_join(parts) for parts in zip(*batches, strict=True))
        assert ids is not None
        start = 0
        for each in pending:
            rows, tiles = slice(start, start + len(each.clips)), each.tiles
            yield (
                each.video,
                EncodedWindows(
                    each.frames,
                    by_time(ids[rows], tiles),
                    None if scores is None else by_time(scores[rows], tiles),
                    None if lengths is None else by_time(lengths[rows], tiles),
                ),
            )
            start = rows.stop

    def _encode(self, clips: Tensor) -> tuple[NDArray[np.uint16], Scores | None, Lengths | None]:
        """Encode a batch of clips: ids `[B, g, K]`, and scores `[B, g, L]` and lengths `[B, g]` if they are chosen."""
        encoded = self.codec.encode_clips(clips)
        scores: Scores | None = None
        lengths: Lengths | None = None
        if self.policy.causal:
            choose, absolute = self.policy.chooser(self.codec.layout), self.policy.target is not None
            lengths, scores = self.codec.choose_lengths(encoded, choose, absolute=absolute)
        elif self._scored:
            scores = self.codec.allocation_scores(encoded, self._scored_for).cpu().numpy()
        return encoded.ids.cpu().numpy().astype(np.uint16), scores, lengths


def _join(parts: tuple[NDArray[np.generic] | None, ...]) -> NDArray[np.generic] | None:
    """Concatenate arrays of batches; None if there are none."""
    present = [part for part in parts if part is not None]
    return np.concatenate(present) if present else None


def encode_stream(
    codec: ClipCodec, source: FrameSource, policy: LengthPolicy, geometry: Geometry
) -> Iterator[EncodedWindows]:
    """Encode a video block by block, as a stream."""
    stream = Streaming(codec.model, policy, geometry)
    frames = 0
    for block in stream.encode(source.frames):
        ids = np.zeros((len(block.lengths), codec.config.tokenizer.latents), np.uint16)
        ids[np.arange(ids.shape[1]) < np.array(block.lengths)[:, None]] = block.ids
        scores = None if block.scores is None else block.scores.reshape(len(ids), -1)
        yield EncodedWindows(stream.frames - frames, ids, scores, np.array(block.lengths))
        frames = stream.frames
