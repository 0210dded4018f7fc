"""What a model's tokens are worth: encode, spend every budget adaptively and evenly, decode, and measure.

Legend: `n` clips of a unit, `G` blocks of a clip, `K` latents of a block, `L` candidate lengths, `V` variants, `M`
metrics, `F` features.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import LengthPolicy, StreamChooser
from adaptok.codec.clips import EncodedClips
from adaptok.codec.codec import AdapTok
from adaptok.config.model import Distortion
from adaptok.data.decoding import DECODING_ERRORS, describe_error
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.partial_results import Part, Plan, PlannedVideo, VideoRecord, note_source
from adaptok.evaluation.protocols import Cut
from adaptok.metrics.distortion import block_distortion
from adaptok.utils.files import sha256_of

KEPT_CLIPS = 32
"""Clips of a unit that are kept in memory between encoding and measuring; of more, the videos are read again."""

OFFICIAL_BUDGETS: dict[float, tuple[int, ...]] = {
    256: (64, 64, 64, 64),
    512: (284, 80, 72, 72),
    768: (408, 140, 114, 102),
    1024: (456, 242, 172, 150),
    1280: (478, 342, 246, 210),
    1536: (490, 418, 342, 282),
    1792: (498, 468, 440, 384),
    2048: (512, 512, 512, 512),
}
"""Tokens of each block index that the official procedure spends, by tokens of a clip; 4 blocks of up to 512."""

Lengths = NDArray[np.int64]


class Variant(NamedTuple):
    """One way to spend: tokens per clip, by the scores or evenly."""

    budget: float
    adaptive: bool


def variants(plan: Plan, scored: bool) -> list[Variant]:
    """Of every budget, the adaptive way first, where there are scores, then the even one."""
    ways = (True, False) if scored else (False,)
    return [Variant(budget, adaptive) for budget in plan.budgets for adaptive in ways]


class _Clips:
    """Clips of some videos, read as often as need be. `records` is filled while they are read first."""

    def __init__(self, videos: Iterable[PlannedVideo], root: Path, cut: Cut) -> None:
        self.videos, self.root, self.cut = list(videos), root, cut
        self.records = [VideoRecord(video.path, video.label) for video in self.videos]
        self._kept: list[tuple[int, Tensor]] | None = []
        self._read = False

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Index of a video, and a clip of it `[3, T, S, S]`."""
        if self._read and self._kept is not None:
            yield from self._kept
            return
        for index, record in enumerate(self.records):
            for clip in self._of_video(index, record):
                if not self._read and self._kept is not None:
                    self._kept.append((index, clip))
                    if len(self._kept) > KEPT_CLIPS:
                        self._kept = None
                yield index, clip
        self._read = True

    def _of_video(self, index: int, record: VideoRecord) -> Iterator[Tensor]:
        path = self.root / self.videos[index].path
        count = 0
        try:
            for clip in self.cut.clips(path, partial(note_source, record)):
                yield clip
                count += 1
            record.sha256 = record.sha256 or sha256_of(path)
        except DECODING_ERRORS as error:
            if count:
                record.warning = describe_error(error)
            else:
                record.skipped = describe_error(error)
        record.clips = count


class TokenizerTask:
    """Measures a model. See `Task`.

    Args:
        codec: the model.
        measures: what to measure.
        plan: of the kind "tokenizer".
        root: where the plan's paths start.
        batch_size: clips computed at once; only results of the scope "batch" depend on it.
    """

    def __init__(self, codec: AdapTok, measures: Measures, plan: Plan, root: Path, batch_size: int = 4) -> None:
        self.codec, self.measures, self.plan, self.root, self.batch_size = codec, measures, plan, root, batch_size
        self.variants = variants(plan, codec.config.scorer is not None)
        self.cut = Cut(plan.protocol, plan.frames, plan.size)

    @property
    def distortion(self) -> Distortion | None:
        """What the scorer predicts, where it can be measured here."""
        scorer = self.codec.config.scorer
        if scorer is None or (scorer.distortion == "lpips" and "vgg" not in self.measures.lpips):
            return None
        return scorer.distortion

    def measure(self, unit: int) -> Part:
        """Results of one unit of the plan.

        Arrays: `ids` uint16 `[n, G, K]`; `lengths`, `predicted`, `actual` `[n, V, G]`; `metrics` `[n, V, M]`;
        `features` `[n, 1 + V, F]`, the original's first. What cannot be had is NaN or left out.
        """
        clips = _Clips(self.plan.of_unit(unit), self.root, self.cut)
        seconds = dict.fromkeys(("encode", "decode", "measure"), 0.0)
        encoded = _Encoding(self)
        for batch in batched(clips, self.batch_size):
            started = self._now()
            encoded.add([owner for owner, _ in batch], torch.stack([clip for _, clip in batch]))
            seconds["encode"] += self._now() - started
        arrays = {}
        if encoded.owners:
            arrays = encoded.arrays()
            arrays |= self._decode(clips, arrays["ids"], arrays["lengths"], seconds)
        return Part(clips.records, arrays, seconds)

    def _decode(
        self, clips: _Clips, ids: NDArray[np.uint16], lengths: Lengths, seconds: dict[str, float]
    ) -> dict[str, NDArray[Any]]:
        rows: list[dict[str, NDArray[Any]]] = []
        for batch in batched(clips, self.batch_size):
            part = slice(len(rows), len(rows) + len(batch))
            decoded = []
            started = self._now()
            for variant in range(len(self.variants)):
                kept = lengths[part, variant]
                wanted = torch.from_numpy(ids[part, :, : kept.max()].astype(np.int64))
                decoded.append(self.codec.decode_clips(wanted, kept.tolist()).clamp(0, 1))
            seconds["decode"] += self._now() - started
            started = self._now()
            for index, (_, clip) in enumerate(batch):
                rows.append(self._compare(clip.to(self.codec.device), [made[index] for made in decoded]))
            seconds["measure"] += self._now() - started
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _compare(self, clip: Tensor, decoded: list[Tensor]) -> dict[str, NDArray[Any]]:
        """Metrics, features and true distortions of every variant of one clip."""
        kind, pt = self.distortion, self.codec.config.tokenizer.temporal_patch_size
        row: dict[str, NDArray[Any]] = {"metrics": np.stack([self.measures.clip(made, clip) for made in decoded])}
        if self.measures.detector is not None:
            row["features"] = np.stack([self.measures.features(each) for each in (clip, *decoded)])
        if kind is not None:
            lpips = self.measures.lpips.get("vgg")
            found = [block_distortion(made[None], clip[None], kind, pt, lpips)[0] for made in decoded]
            row["actual"] = torch.stack(found).cpu().double().numpy()
        else:
            row["actual"] = np.full((len(decoded), clip.shape[1] // pt), np.nan)
        return row

    def _now(self) -> float:
        """Seconds, once the device has done its work."""
        if self.codec.device.type == "cuda":
            torch.cuda.synchronize(self.codec.device)
        return time.perf_counter()


class _Encoding:
    """Ids, scores and lengths of the clips of a unit, batch by batch."""

    def __init__(self, task: TokenizerTask) -> None:
        self.codec, self.plan, self.variants = task.codec, task.plan, task.variants
        self.scope = task.plan.scope or "video"
        self.causal = self.scope in ("batch", "stream")
        self.owners: list[int] = []
        self._ids: list[NDArray[np.uint16]] = []
        self._scores: list[NDArray[np.float32]] = []  # of all variants, or of each where lengths decide about them
        self._lengths: list[Lengths] = []
        self._choosers: dict[tuple[int, int], StreamChooser] = {}

    def add(self, owners: list[int], clips: Tensor) -> None:
        """The next clips `[b, 3, T, S, S]`, and which videos they are of."""
        latents = self.codec.encode_clips(clips)
        self.owners += owners
        self._ids.append(latents.ids.cpu().numpy().astype(np.uint16))
        if self.codec.config.scorer is None:
            return
        if not self.causal:
            self._scores.append(self.codec.score_clips(latents, normalized=False).cpu().numpy())
            return
        chosen = [self._choose(latents, owners, i) for i, variant in enumerate(self.variants) if variant.adaptive]
        self._lengths.append(np.stack([lengths for lengths, _ in chosen], 1))
        self._scores.append(np.stack([scores for _, scores in chosen], 1))

    def _choose(self, latents: EncodedClips, owners: list[int], variant: int) -> tuple[Lengths, NDArray[np.float32]]:
        """Lengths `[b, G]` and scores `[b, G, L]`, each block scored given the lengths before it."""
        layout = self.codec.layout
        policy = LengthPolicy(self._budget(self.variants[variant].budget), self.scope)
        if self.scope == "batch":
            return self.codec.choose_lengths(latents, partial(policy.batch_lengths, layout=layout))
        results = []
        for n, owner in enumerate(owners):
            chooser = self._choosers.setdefault((variant, owner), policy.stream(layout))
            one = EncodedClips(*(None if part is None else part[n : n + 1] for part in latents))  # type: ignore[arg-type]
            results.append(self.codec.choose_lengths(one, partial(_next_length, chooser)))
        return np.concatenate([r[0] for r in results]), np.concatenate([r[1] for r in results])

    def _budget(self, budget: float) -> float | tuple[int, ...]:
        """Of the official procedure, where it is the model's and one of the official ones: for each block index."""
        layout = self.codec.layout
        if self.scope == "batch" and self.plan.protocol == "official" and (layout.blocks, layout.latents) == (4, 512):
            return OFFICIAL_BUDGETS.get(budget, budget)
        return budget

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, once all clips are there."""
        ids = np.concatenate(self._ids)
        n, g, _ = ids.shape
        lengths = np.zeros((n, len(self.variants), g), np.int64)
        predicted = np.full(lengths.shape, np.nan)
        scores = np.concatenate(self._scores) if self._scores else None
        chosen = np.concatenate(self._lengths) if self._lengths else None
        place = 0
        for i, variant in enumerate(self.variants):
            if not variant.adaptive:
                lengths[:, i] = self._shared(variant, None, n, g)
                continue
            assert scores is not None
            own = scores[:, place] if chosen is not None else scores
            lengths[:, i] = chosen[:, place] if chosen is not None else self._shared(variant, scores, n, g)
            column = lengths[:, i] // self.codec.length_step - 1
            predicted[:, i] = np.take_along_axis(own, column[..., None], 2)[..., 0]
            place += 1
        return {"ids": ids, "lengths": lengths, "predicted": predicted}

    def _shared(self, variant: Variant, scores: NDArray[np.float32] | None, n: int, g: int) -> Lengths:
        """Lengths `[n, G]`, of each video by itself."""
        policy = LengthPolicy(variant.budget, "clip" if self.scope == "clip" else "video", uniform=not variant.adaptive)
        owners, parts = np.array(self.owners), []
        for owner in dict.fromkeys(self.owners):
            own = None if scores is None else scores[owners == owner].reshape(-1, scores.shape[-1])
            count = int((owners == owner).sum())
            parts.append(policy.lengths(own, count * g, self.codec.layout).reshape(count, g))
        return np.concatenate(parts)


def _next_length(chooser: StreamChooser, scores: NDArray[np.float32], _: int) -> Lengths:
    return np.array([chooser.choose(scores[0])])


def batched(items: Iterable[tuple[int, Tensor]], size: int) -> Iterator[list[tuple[int, Tensor]]]:
    """Items in lists of up to `size`."""
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
