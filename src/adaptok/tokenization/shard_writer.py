"""Writing a shard of a token dataset: read the clips of its videos, encode them, choose their lengths, and store them.

Legend: `B` clips of a batch, `G` blocks per clip, `K` latents per block, `L` candidate lengths, `T` frames, `S` pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import Lengths, Scores, StreamChooser
from adaptok.codec.clips import EncodedClips
from adaptok.codec.codec import AdapTok
from adaptok.data.decoding import DECODING_ERRORS, describe_error
from adaptok.data.statistics import MIN_DECODED_FRACTION
from adaptok.data.token_shards import TokenClip, write_rows
from adaptok.tokenization.clip_lengths import LengthSelector
from adaptok.tokenization.plan import PlannedVideo, TokenPlan, shard_path
from adaptok.utils.files import claiming
from adaptok.video.clips import iter_clips, pad_clip
from adaptok.video.geometry import Geometry
from adaptok.video.limits import ANY_DURATION
from adaptok.video.read_ahead import read_ahead
from adaptok.video.reading import VideoReader
from adaptok.video.sources import FrameSource, open_frames

BATCHES_AHEAD = 2
"""Batches of clips that are read and resized while the model encodes another one."""
Ids = NDArray[np.uint16]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class ModelReference:
    """Arguments that every process loads the model with."""

    name: str | None
    device: str
    dtype: str

    @classmethod
    def create(cls, model: AdapTok | str | Path | None, device: str, dtype: str) -> ModelReference:
        """Make a reference to a model that is valid in any working directory."""
        if model is None or isinstance(model, AdapTok):
            return cls(None, device, dtype)
        return cls(str(Path(model).resolve()) if Path(model).is_dir() else str(model), device, dtype)

    def load(self) -> AdapTok:
        """Load the model."""
        return AdapTok.from_pretrained(self.name, device=self.device, dtype=self.dtype)


class _Source(NamedTuple):
    """Frames per second at which a video is sampled, and the size of its frames."""

    fps: float
    width: int
    height: int


class _VideoClip(NamedTuple):
    """A clip of a video: the index of its first frame, pixels `[3, T, S, S]`, and properties of the sampled video."""

    video: PlannedVideo
    start: int
    pixels: Tensor
    source: _Source


class _EncodedClip(NamedTuple):
    """An encoded clip: ids `[G, K]`, scores `[G, L]`, lengths `[G]` if already chosen, and ids of the condition."""

    video: PlannedVideo
    start: int
    source: _Source
    ids: Ids
    scores: Scores | None
    lengths: Lengths | None
    condition: Ids | None


class ShardWriter:
    """Writes shards of a plan to the folder `out`.

    Attributes:
        waiting_seconds: Time for which the model has waited for clips.

    Raises:
        ValueError: The plan was made for another model.
    """

    def __init__(self, codec: AdapTok, plan: TokenPlan, out: Path) -> None:
        if codec.weights_hash != plan.info.model_hash:
            raise ValueError(
                f"the model {codec.config.name!r} has weights {codec.weights_hash[:12]}, the plan was made for"
                f" {plan.info.model_hash[:12]}; use that model"
            )
        self.codec, self.plan, self.out = codec, plan, out
        self.selector = LengthSelector(plan.info, codec.config)
        self.waiting_seconds = 0.0

    @classmethod
    def open(cls, out: Path, reference: ModelReference) -> ShardWriter:
        """Make the writer of a worker process."""
        return cls(reference.load(), TokenPlan.read(out), out)

    def write(self, number: int, progress: Progress | None = None) -> bool:
        """Write a shard, unless it exists or another live process is writing it. Return whether it was written.

        `progress` is called with the number of clips just processed. The total equals the number in the plan.
        """
        done = 0

        def count(clips: int) -> None:
            nonlocal done
            done += clips
            if progress is not None:
                progress(clips)

        with claiming(shard_path(self.out, number)) as file:
            if file is not None:
                rows, broken = self._rows(number, count)
                write_rows(file, rows, self.plan.info, broken, self.plan.checksum(number))
        if progress is not None and done != self.plan.clips(number):
            progress(self.plan.clips(number) - done)
        return file is not None

    def _rows(self, number: int, progress: Progress) -> tuple[list[TokenClip], dict[str, str]]:
        """Return the rows of a shard, and the reason for each file that could not be read, or only in part."""
        broken: dict[str, str] = {}
        streams: dict[str, StreamChooser] = {}
        encoded: list[_EncodedClip] = []
        with read_ahead(self._read_clips(number, broken), BATCHES_AHEAD * self.plan.batch_size) as clips:
            while batch := self._next_batch(clips):
                encoded += self._encode(batch, streams)
                progress(len(batch))
        videos = groupby(encoded, key=lambda clip: clip.video.source)
        return [row for _, group in videos for row in self._truncate(list(group))], broken

    def _next_batch(self, clips: Iterator[_VideoClip]) -> list[_VideoClip]:
        started = time.perf_counter()
        batch = list(islice(clips, self.plan.batch_size))
        self.waiting_seconds += time.perf_counter() - started
        return batch

    def _read_clips(self, number: int, broken: dict[str, str]) -> Iterator[_VideoClip]:
        """Yield the clips of all videos of a shard that can be decoded. The others are added to `broken`."""
        info, size = self.plan.info, self.codec.config.tokenizer.size
        for video in self.plan.videos_of(number):
            path = self.plan.path(video)
            video.check(path)
            try:
                with open_frames(path, fps=info.settings.fps, threads=1, limits=ANY_DURATION) as opened:
                    source = _Source(float(opened.fps), opened.width, opened.height)
                    geometry = Geometry(info.settings.fit, source.width, source.height, size)
                    for start, pixels in iter_clips(
                        opened.frames, geometry.apply, info.frames, stride=info.stride, max_clips=self.plan.limit
                    ):
                        is_short_video = start == 0 and pixels.shape[1] < info.frames and _damage(opened) is None
                        if pixels.shape[1] == info.frames or is_short_video:
                            yield _VideoClip(video, start, pad_clip(pixels, info.frames), source)
                    if damage := _damage(opened):
                        broken[video.source] = damage
            except DECODING_ERRORS as error:
                broken[video.source] = describe_error(error)

    def _encode(self, batch: Sequence[_VideoClip], streams: dict[str, StreamChooser]) -> Iterator[_EncodedClip]:
        pixels = torch.stack([clip.pixels for clip in batch])
        encoded = self.codec.encode_clips(pixels)
        scores, lengths = self._score(batch, encoded, streams)
        ids = encoded.ids.cpu().numpy().astype(np.uint16)
        conditions = self._encode_conditions(pixels, ids)
        for n, (video, start, _, source) in enumerate(batch):
            yield _EncodedClip(
                video,
                start,
                source,
                ids[n],
                None if scores is None else scores[n],
                None if lengths is None else lengths[n],
                None if conditions is None else conditions[n],
            )

    def _score(
        self, batch: Sequence[_VideoClip], encoded: EncodedClips, streams: dict[str, StreamChooser]
    ) -> tuple[Scores | None, Lengths | None]:
        """Return scores `[B, G, L]` if they are needed, and lengths `[B, G]` if the policy is causal."""
        policy = self.selector.policy
        absolute = policy.target is not None
        if not policy.causal:
            if not policy.needs_scores and not self.plan.scores:
                return None, None
            return self.codec.allocation_scores(encoded, self.selector.scored_for).cpu().numpy(), None
        if policy.scope == "batch":
            lengths, scores = self.codec.choose_lengths(encoded, self.selector.chooser(), absolute=absolute)
            return scores, lengths
        chosen = []
        for n, clip in enumerate(batch):
            if clip.video.source not in streams:
                streams[clip.video.source] = policy.stream(self.selector.layout)
            choose = self.selector.chooser(streams[clip.video.source])
            chosen.append(self.codec.choose_lengths(encoded.at(n), choose, absolute=absolute))
        return np.concatenate([scores for _, scores in chosen]), np.concatenate([lengths for lengths, _ in chosen])

    def _encode_conditions(self, pixels: Tensor, ids: Ids) -> Ids | None:
        """Return the ids `[B, condition_ids]` of the first frames of each clip, encoded without later ones."""
        info, first = self.plan.info, self.selector.first_block
        if not info.condition_frames:
            return None
        covered = info.condition_ids // info.latents * info.block_frames
        if covered == info.condition_frames:
            condition = ids[:, :first]
        else:  # the last block is filled up by repeating the last frame of the condition
            frames = torch.arange(covered).clamp(max=info.condition_frames - 1)
            condition = self.codec.encode_clips(pixels[:, :, frames]).ids.cpu().numpy().astype(np.uint16)
            ids[:, :first] = condition[:, :first]  # later frames cannot change them, but rounding could
        return condition.reshape(len(condition), -1)

    def _truncate(self, clips: Sequence[_EncodedClip]) -> list[TokenClip]:
        """Choose the lengths of the clips of one video, and return their rows."""
        chosen = [clip.lengths for clip in clips if clip.lengths is not None]
        scores = [clip.scores for clip in clips if clip.scores is not None]
        stacked = np.stack(scores) if scores else None
        lengths = np.stack(chosen) if chosen else self.selector.select(stacked, len(clips))
        return [
            TokenClip(
                clip.ids[np.arange(clip.ids.shape[1]) < own[:, None]],
                own,
                clip.video.label,
                clip.video.source,
                clip.start,
                clip.scores if self.plan.scores else None,
                clip.condition,
                *clip.source,
            )
            for clip, own in zip(clips, lengths, strict=True)
        ]


def _damage(source: FrameSource) -> str | None:
    """Describe the damage of a video that was read. Containers without a frame count only give a duration."""
    reader = source.reader
    if not isinstance(reader, VideoReader):  # frames in a folder
        return source.warning
    expected = reader.expected or 0
    enough = min(MIN_DECODED_FRACTION * expected, expected - 1)
    if reader.warning is None and reader.done and reader.count < enough:
        return f"cut off; {reader.count} of about {expected} frames could be decoded and are used"
    return reader.warning
