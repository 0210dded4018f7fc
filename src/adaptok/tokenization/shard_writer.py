"""A shard of a token dataset: clips of its videos, computed in batches, their lengths chosen, and written.

Legend: `B` clips of a batch, `G` blocks of a clip, `K` latents of a block, `L` candidate lengths, `T` frames,
`S` pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import LengthPolicy, Scores, StreamChooser
from adaptok.codec.clips import EncodedClips
from adaptok.codec.codec import AdapTok
from adaptok.data.decoding import DECODING_ERRORS, describe_error
from adaptok.data.token_datasets import TokenClip, write_rows
from adaptok.tokenization.plan import Choice, PlannedVideo, TokenPlan, shard_path
from adaptok.utils.files import claiming
from adaptok.video.clips import iter_clips, pad_clip
from adaptok.video.geometry import Geometry
from adaptok.video.reading import VideoReader

Ids = NDArray[np.uint16]
Lengths = NDArray[np.int64]
_MOSTLY = 0.9  # of the frames that a duration promises, where the file has no count


@dataclass(frozen=True)
class ModelSource:
    """Where every process gets the model from."""

    name: str | None
    device: str
    dtype: str

    @classmethod
    def of(cls, model: AdapTok | str | Path | None, device: str, dtype: str) -> ModelSource:
        """That of a model; a folder is found from any place."""
        if model is None or isinstance(model, AdapTok):
            return cls(None, device, dtype)
        return cls(str(Path(model).resolve()) if Path(model).is_dir() else str(model), device, dtype)

    def load(self) -> AdapTok:
        return AdapTok.from_pretrained(self.name, device=self.device, dtype=self.dtype)


class _Clip(NamedTuple):
    """Of a video: its first frame, and pixels `[3, T, S, S]`."""

    video: PlannedVideo
    start: int
    pixels: Tensor


class _Coded(NamedTuple):
    """A clip's ids `[G, K]`, distortions `[G, L]`, lengths `[G]` where they are chosen, and condition."""

    video: PlannedVideo
    start: int
    ids: Ids
    scores: Scores | None
    lengths: Lengths | None
    condition: Ids | None


class ShardWriter:
    """Writes shards of a plan.

    Args:
        codec: of the model that the plan is for.
        out: folder of the dataset.

    Raises:
        ValueError: it is another model.
    """

    def __init__(self, codec: AdapTok, plan: TokenPlan, out: Path) -> None:
        if codec.weights_hash != plan.info.model_hash:
            raise ValueError(
                f"the model {codec.config.name!r} has weights {codec.weights_hash[:12]}, the plan is for"
                f" {plan.info.model_hash[:12]}; give that model"
            )
        self.codec, self.plan, self.out = codec, plan, out
        self.choice = Choice.of(plan.info, codec.config)

    @classmethod
    def open(cls, out: Path, origin: ModelSource) -> ShardWriter:
        """One of a process of its own."""
        return cls(origin.load(), TokenPlan.read(out), out)

    def write(self, number: int, advance: Callable[[int], None] | None = None) -> bool:
        """Write a shard; False where it is there, or another live process is writing it.

        Args:
            advance: called with the number of clips just done; in the end they are as many as the plan expects.
        """
        done = 0

        def count(clips: int) -> None:
            nonlocal done
            done += clips
            if advance is not None:
                advance(clips)

        with claiming(shard_path(self.out, number)) as file:
            if file is not None:
                rows, broken = self.rows(number, count)
                write_rows(file, rows, self.plan.info, broken)
        if advance is not None and done != self.plan.clips(number):
            advance(self.plan.clips(number) - done)
        return file is not None

    def rows(self, number: int, count: Callable[[int], None] | None = None) -> tuple[list[TokenClip], dict[str, str]]:
        """Rows of a shard, and its files that could not be read, or only in part, with the reason.

        Args:
            count: called with the number of clips just computed.

        Raises:
            FileNotFoundError: a file has gone since the plan was made.
        """
        broken: dict[str, str] = {}
        clips = self._clips(number, broken)
        streams: dict[str, StreamChooser] = {}
        coded: list[_Coded] = []
        while batch := list(islice(clips, self.plan.batch_size)):
            coded += self._encode(batch, streams)
            if count is not None:
                count(len(batch))
        rows: list[TokenClip] = []
        for _, group in groupby(coded, key=lambda clip: clip.video.source):
            rows += self._choose(list(group))
        return rows, broken

    def _clips(self, number: int, broken: dict[str, str]) -> Iterator[_Clip]:
        """Those of all videos of a shard that can be decoded."""
        info, size = self.plan.info, self.codec.config.tokenizer.size
        for video in self.plan.videos_of(number):
            path = self.plan.path(video)
            if not path.exists():  # a disk that is gone is no reason to leave its files out for ever
                raise FileNotFoundError(f"{path}: was there when the dataset was begun; bring it back and go on")
            try:
                with VideoReader(path, fps=info.settings.fps, threads=1) as reader:
                    geometry = Geometry(info.settings.fit, reader.info.width, reader.info.height, size)
                    for start, pixels in iter_clips(
                        reader, geometry.apply, info.frames, stride=info.stride, max_clips=self.plan.limit
                    ):
                        if pixels.shape[1] == info.frames:
                            yield _Clip(video, start, pixels)
                        elif start == 0 and _damage(reader) is None:
                            yield _Clip(video, start, pad_clip(pixels, info.frames))
                    if damage := _damage(reader):
                        broken[video.source] = damage
            except DECODING_ERRORS as error:
                broken[video.source] = describe_error(error)

    def _encode(self, batch: Sequence[_Clip], streams: dict[str, StreamChooser]) -> Iterator[_Coded]:
        pixels = torch.stack([clip.pixels for clip in batch])
        latents = self.codec.encode_clips(pixels)
        scores, lengths = self._score(batch, latents, streams)
        ids = latents.ids.cpu().numpy().astype(np.uint16)
        conditions = self._conditions(pixels, ids)
        for n, (video, start, _) in enumerate(batch):
            yield _Coded(
                video,
                start,
                ids[n],
                None if scores is None else scores[n],
                None if lengths is None else lengths[n],
                None if conditions is None else conditions[n],
            )

    def _score(
        self, batch: Sequence[_Clip], latents: EncodedClips, streams: dict[str, StreamChooser]
    ) -> tuple[Scores | None, Lengths | None]:
        """Distortions `[B, G, L]` where they are wanted, and lengths `[B, G]` where they depend on earlier ones."""
        policy = self.choice.policy
        if not policy.causal:
            if not policy.needs_scores and not self.plan.scores:
                return None, None
            return self.codec.score_clips(latents, normalized=False).cpu().numpy(), None
        if policy.scope == "batch":
            lengths, scores = self.codec.choose_lengths(latents, self._after_condition(self._batch_lengths))
            return scores, lengths
        chosen = []
        for n, clip in enumerate(batch):
            if clip.video.source not in streams:
                streams[clip.video.source] = policy.stream(self.choice.layout)
            one = _one(latents, n)
            choose = self._after_condition(partial(_stream_lengths, streams[clip.video.source]))
            chosen.append(self.codec.choose_lengths(one, choose))
        return np.concatenate([scores for _, scores in chosen]), np.concatenate([lengths for lengths, _ in chosen])

    def _after_condition(self, choose: Callable[[Scores, int], Lengths]) -> Callable[[Scores, int], Lengths]:
        """The same choice, but for the condition's blocks, which keep everything."""
        first, latents = self.choice.first_block, self.choice.layout.latents
        return lambda scores, i: np.full(len(scores), latents) if i < first else choose(scores, i)

    def _batch_lengths(self, scores: Scores, block: int) -> Lengths:
        policy = _within_reach(self.choice.policy, scores)
        return policy.batch_lengths(scores, block, self.choice.layout)

    def _conditions(self, pixels: Tensor, ids: Ids) -> Ids | None:
        """Ids `[B, …]` of the clips that show their first frames alone, as far as those reach.

        `ids [B, G, K]` of the blocks that lie wholly within them are set to the same: later blocks cannot change them,
        but rounding could.
        """
        info, first = self.plan.info, self.choice.first_block
        if not info.condition_frames:
            return None
        shown = info.condition_ids // info.latents * info.block_frames
        if shown == info.condition_frames:
            condition = ids[:, :first]
        else:
            frames = torch.arange(shown).clamp(max=info.condition_frames - 1)
            condition = self.codec.encode_clips(pixels[:, :, frames]).ids.cpu().numpy().astype(np.uint16)
            ids[:, :first] = condition[:, :first]
        return condition.reshape(len(condition), -1)

    def _choose(self, clips: Sequence[_Coded]) -> list[TokenClip]:
        """Rows of the clips of one video."""
        return [
            TokenClip(
                clip.ids[np.arange(clip.ids.shape[1]) < lengths[:, None]],
                lengths,
                clip.video.label,
                clip.video.source,
                clip.start,
                clip.scores if self.plan.scores else None,
                clip.condition,
            )
            for clip, lengths in zip(clips, self._lengths(clips), strict=True)
        ]

    def _lengths(self, clips: Sequence[_Coded]) -> Lengths:
        """`[B, G]`."""
        known = [clip.lengths for clip in clips if clip.lengths is not None]
        if known:
            return np.stack(known)
        groups = [[clip] for clip in clips] if self.choice.policy.scope == "clip" else [clips]
        return np.concatenate([self._share(group) for group in groups])

    def _share(self, clips: Sequence[_Coded]) -> Lengths:
        """`[B, G]` of clips that share what may be spent."""
        choice, first = self.choice, self.choice.first_block
        scored = [clip.scores[first:] for clip in clips if clip.scores is not None]
        scores = np.concatenate(scored) if scored else None
        policy = _within_reach(choice.policy, scores)
        free = policy.lengths(scores, len(clips) * choice.layout.blocks, choice.layout)
        lengths = np.full((len(clips), self.plan.info.blocks), choice.layout.latents, np.int64)
        lengths[:, first:] = free.reshape(len(clips), -1)
        return lengths


def _damage(reader: VideoReader) -> str | None:
    """What was wrong with a video that is read; containers that count no frames only say how long they are."""
    expected = reader.expected or 0
    if reader.warning is None and reader.done and reader.count < min(_MOSTLY * expected, expected - 1):
        return f"cut off; {reader.count} of about {expected} frames could be decoded and are used"
    return reader.warning


def _stream_lengths(chooser: StreamChooser, scores: Scores, _: int) -> Lengths:
    return np.array([chooser.choose(scores[0])])


def _within_reach(policy: LengthPolicy, scores: Scores | None) -> LengthPolicy:
    """Where blocks with these scores cannot reach the target, their best instead: one video must not end the work."""
    if policy.target is None or scores is None:
        return policy
    best = float(scores.astype(np.float64).min(1).mean())
    return policy if policy.target >= best else replace(policy, target=best * (1 + 1e-6))


def _one(latents: EncodedClips, n: int) -> EncodedClips:
    """Those of one clip of a batch."""
    part = slice(n, n + 1)
    clips = None if latents.clips is None else latents.clips[part]
    return EncodedClips(latents.ids[part], latents.encoded[part], latents.inputs[part], clips)
