"""Measure a tokenizer: encode clips, decode them at every budget with adaptive and uniform lengths, and compare.

Legend: `n` clips of a unit, `b` clips of a batch, `G` blocks of a clip, `K` latents of a block, `L` candidate lengths,
`V` variants, `M` metrics, `F` features.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

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
from adaptok.evaluation.partial_results import PartialResult, Plan, PlannedVideo, VideoRecord
from adaptok.evaluation.protocols import ClipSelection
from adaptok.evaluation.results import Variant, VariantName
from adaptok.metrics.distortion import block_distortion
from adaptok.utils.files import sha256_of

MAX_KEPT_CLIPS = 32
"""Maximum number of clips of a unit that stay in memory between encoding and decoding. Larger units are read twice."""

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
"""Budget of each block index in the official procedure, by tokens per clip, for 4 blocks of up to 512 tokens."""

Lengths = NDArray[np.int64]


class _Clips:
    """Clips of some videos, which can be iterated repeatedly. The first iteration fills `records`."""

    def __init__(self, videos: Iterable[PlannedVideo], root: Path, selection: ClipSelection) -> None:
        self.videos, self.root, self.selection = list(videos), root, selection
        self.records = [VideoRecord(video.path, video.label) for video in self.videos]
        self._kept: list[tuple[int, Tensor]] | None = []
        self._read = False

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Yield clips `[3, T, S, S]`, each with the index of its video."""
        if self._read and self._kept is not None:
            yield from self._kept
            return
        for index, record in enumerate(self.records):
            for clip in self._of_video(index, record):
                if not self._read and self._kept is not None:
                    self._kept.append((index, clip))
                    if len(self._kept) > MAX_KEPT_CLIPS:
                        self._kept = None
                yield index, clip
        self._read = True

    def _of_video(self, index: int, record: VideoRecord) -> Iterator[Tensor]:
        path = self.root / self.videos[index].path
        count = 0
        try:
            for clip in self.selection.clips(path, record.note):
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
    """Measures the units of a plan of the kind "tokenizer".

    Args:
        codec: the model.
        measures: metrics to measure.
        plan: videos, budgets and scope.
        root: folder that the paths of the plan refer to.
        batch_size: clips per batch. Only results of the scope "batch" depend on it.
    """

    def __init__(self, codec: AdapTok, measures: Measures, plan: Plan, root: Path, batch_size: int = 4) -> None:
        self.codec, self.measures, self.plan, self.root, self.batch_size = codec, measures, plan, root, batch_size
        names: tuple[VariantName, ...] = ("uniform",) if codec.config.scorer is None else ("adaptive", "uniform")
        self.variants = [Variant(budget, name) for budget in plan.budgets for name in names]
        self.selection = ClipSelection(plan.protocol, plan.frames, plan.size)

    @property
    def distortion(self) -> Distortion | None:
        """Distortion that the scorer predicts; None if it cannot be measured."""
        scorer = self.codec.config.scorer
        if scorer is None or (scorer.distortion == "lpips" and "vgg" not in self.measures.lpips):
            return None
        return scorer.distortion

    def measure(self, unit: int) -> PartialResult:
        """Measure one unit of the plan.

        The arrays are `ids` uint16 `[n, G, K]`; `lengths`, `predicted`, `actual` `[n, V, G]`; `metrics` `[n, V, M]`;
        and with a detector `features` `[n, 1 + V, F]`, the original's first. Unknown distortions are NaN.
        """
        clips = _Clips(self.plan.of_unit(unit), self.root, self.selection)
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
        return PartialResult(clips.records, arrays, seconds)

    def _decode(
        self, clips: _Clips, ids: NDArray[np.uint16], lengths: Lengths, seconds: dict[str, float]
    ) -> dict[str, NDArray[Any]]:
        rows: list[dict[str, NDArray[Any]]] = []
        for batch in batched(clips, self.batch_size):
            rows_of_batch = slice(len(rows), len(rows) + len(batch))
            decoded = []
            started = self._now()
            for variant in range(len(self.variants)):
                kept = lengths[rows_of_batch, variant]
                tokens = torch.from_numpy(ids[rows_of_batch, :, : kept.max()].astype(np.int64))
                decoded.append(self.codec.decode_clips(tokens, kept.tolist()).clamp(0, 1))
            seconds["decode"] += self._now() - started
            started = self._now()
            for index, (_, clip) in enumerate(batch):
                rows.append(self._compare(clip.to(self.codec.device), [batch_clips[index] for batch_clips in decoded]))
            seconds["measure"] += self._now() - started
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _compare(self, clip: Tensor, decoded: list[Tensor]) -> dict[str, NDArray[Any]]:
        """Measure metrics, features and actual distortions of every variant of a clip."""
        kind, pt = self.distortion, self.codec.config.tokenizer.temporal_patch_size
        row: dict[str, NDArray[Any]] = {"metrics": np.stack([self.measures.clip(each, clip) for each in decoded])}
        if self.measures.detector is not None:
            row["features"] = np.stack([self.measures.features(each) for each in (clip, *decoded)])
        if kind is not None:
            lpips = self.measures.lpips.get("vgg")
            actual = [block_distortion(each[None], clip[None], kind, pt, lpips)[0] for each in decoded]
            row["actual"] = torch.stack(actual).cpu().double().numpy()
        else:
            row["actual"] = np.full((len(decoded), clip.shape[1] // pt), np.nan)
        return row

    def _now(self) -> float:
        """Seconds on a clock, after the device has finished its work."""
        if self.codec.device.type == "cuda":
            torch.cuda.synchronize(self.codec.device)
        return time.perf_counter()


class _Encoding:
    """Token ids, scores and lengths of the clips of a unit, encoded batch by batch."""

    def __init__(self, task: TokenizerTask) -> None:
        self.codec, self.plan, self.variants = task.codec, task.plan, task.variants
        self.scope = task.plan.scope or "video"
        self.causal = self.scope in ("batch", "stream")
        self.owners: list[int] = []
        self._ids: list[NDArray[np.uint16]] = []
        self._scores: list[NDArray[np.float32]] = []  # of every variant `[b, V, G, L]` if they depend on lengths
        self._lengths: list[Lengths] = []
        self._choosers: dict[tuple[int, int], StreamChooser] = {}

    def add(self, owners: list[int], clips: Tensor) -> None:
        """Encode the next clips `[b, 3, T, S, S]` of the videos `owners`."""
        latents = self.codec.encode_clips(clips)
        self.owners += owners
        self._ids.append(latents.ids.cpu().numpy().astype(np.uint16))
        if self.codec.config.scorer is None:
            return
        if not self.causal:
            self._scores.append(self.codec.score_clips(latents, normalized=False).cpu().numpy())
            return
        chosen = [
            self._choose(latents, owners, i) for i, variant in enumerate(self.variants) if variant.name == "adaptive"
        ]
        self._lengths.append(np.stack([lengths for lengths, _ in chosen], 1))
        self._scores.append(np.stack([scores for _, scores in chosen], 1))

    def _choose(self, latents: EncodedClips, owners: list[int], variant: int) -> tuple[Lengths, NDArray[np.float32]]:
        """Choose lengths `[b, G]` and scores `[b, G, L]`; each block is scored given the lengths of earlier blocks."""
        layout = self.codec.layout
        policy = LengthPolicy(self._block_budgets(self.variants[variant].budget or 0.0), self.scope)
        if self.scope == "batch":
            return self.codec.choose_lengths(latents, partial(policy.batch_lengths, layout=layout))
        results = []
        for n, owner in enumerate(owners):
            chooser = self._choosers.setdefault((variant, owner), policy.stream(layout))
            one = EncodedClips(*(None if part is None else part[n : n + 1] for part in latents))  # type: ignore[arg-type]
            results.append(self.codec.choose_lengths(one, partial(_next_length, chooser)))
        return np.concatenate([r[0] for r in results]), np.concatenate([r[1] for r in results])

    def _block_budgets(self, budget: float) -> float | tuple[int, ...]:
        """Budget of each block index where the official procedure defines one, else the budget."""
        layout = self.codec.layout
        if self.scope == "batch" and self.plan.protocol == "official" and (layout.blocks, layout.latents) == (4, 512):
            return OFFICIAL_BUDGETS.get(budget, budget)
        return budget

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Token ids, lengths and predicted distortions of all clips."""
        ids = np.concatenate(self._ids)
        n, g, _ = ids.shape
        lengths = np.zeros((n, len(self.variants), g), np.int64)
        predicted = np.full(lengths.shape, np.nan)
        scores = np.concatenate(self._scores) if self._scores else None
        chosen = np.concatenate(self._lengths) if self._lengths else None
        column = 0
        for i, variant in enumerate(self.variants):
            if variant.name == "uniform":
                lengths[:, i] = self._allocate(variant, None, n, g)
                continue
            assert scores is not None
            own = scores[:, column] if chosen is not None else scores
            lengths[:, i] = chosen[:, column] if chosen is not None else self._allocate(variant, scores, n, g)
            candidate = lengths[:, i] // self.codec.length_step - 1
            predicted[:, i] = np.take_along_axis(own, candidate[..., None], 2)[..., 0]
            column += 1
        return {"ids": ids, "lengths": lengths, "predicted": predicted}

    def _allocate(self, variant: Variant, scores: NDArray[np.float32] | None, n: int, g: int) -> Lengths:
        """Choose lengths `[n, G]`, for each video separately."""
        policy = LengthPolicy(
            variant.budget, "clip" if self.scope == "clip" else "video", uniform=variant.name == "uniform"
        )
        owners, lengths = np.array(self.owners), []
        for owner in dict.fromkeys(self.owners):
            own = None if scores is None else scores[owners == owner].reshape(-1, scores.shape[-1])
            count = int((owners == owner).sum())
            lengths.append(policy.lengths(own, count * g, self.codec.layout).reshape(count, g))
        return np.concatenate(lengths)


def _next_length(chooser: StreamChooser, scores: NDArray[np.float32], _: int) -> Lengths:
    return np.array([chooser.choose(scores[0])])


def batched(items: Iterable[tuple[int, Tensor]], size: int) -> Iterator[list[tuple[int, Tensor]]]:
    """Group items into lists of up to `size`."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
