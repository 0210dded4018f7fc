"""Evaluation of a tokenizer: encode clips, decode them at every budget with adaptive and uniform lengths, and compare.

Legend: `n` clips of a unit, `b` clips of a batch, `G` blocks of a clip, `K` latents of a block, `L` candidate lengths,
`V` variants, `M` metrics, `F` features.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.allocation.policy import (
    OFFICIAL_BLOCK_BUDGETS,
    ClipLayout,
    LengthChooser,
    LengthPolicy,
    official_block_budgets,
)
from adaptok.codec.clips import EncodedClips
from adaptok.codec.codec import AdapTok
from adaptok.config.choices import DEFAULT_EFFORT, ProtocolName, Scope
from adaptok.evaluation.examples import Example
from adaptok.evaluation.fixed_patterns import RATIOS, check_patterns, measured_variants, pattern_lengths
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.partial_results import PartialResult, PartialResults, VideoRecord
from adaptok.evaluation.plan import VIDEOS_PER_UNIT, Plan, PlannedVideo, collection_root, plan_videos
from adaptok.evaluation.protocols import ClipSelection
from adaptok.evaluation.results import ClipRank, Variant
from adaptok.evaluation.summary import TokenFormat
from adaptok.metrics.distortion import block_distortion
from adaptok.models.model import weights_hash
from adaptok.utils.devices import synchronize

BUDGET_FRACTIONS = (0.125, 0.25, 0.5, 1.0)
"""Default budgets, as fractions of the maximum."""
MAX_KEPT_CLIPS = 32
"""Maximum number of clips of a unit that stay in memory between encoding and decoding. Larger units are read twice."""
MAX_EXAMPLE_BUDGETS = 4

Lengths = NDArray[np.int64]
Scores = NDArray[np.float32]


class TokenizerEvaluation:
    """Evaluation of a model on a collection.

    Args:
        codec: the model.
        measures: metrics to measure. The edge ratio is measured on the grid of the model's patches.
        data: folder of videos, or a list of them.
        budgets: tokens per clip; the `BUDGET_FRACTIONS` of the maximum if empty.
        scope: which blocks share a budget.
        protocol: which clips are measured. "adaptok" measures one clip per video, so "video" equals "clip". With the
            scope "batch", its budgets are rows of the official table where the model fits it; see
            `official_block_budgets`.
        batch_size: clips per batch. Only results of the scope "batch" depend on it.
        uniform: measure uniform lengths too.
        effort: how much is computed to score blocks; see `LengthPolicy`.
        fixed: measure fixed patterns too, and uniform lengths; see `adaptok.evaluation.fixed_patterns`. The results are
            those of `FittedResults`.

    Attributes:
        measured: what is measured of every clip.
        variants: what is reported: of the fixed patterns of a budget, the one that fits other videos.
        autocast: type of the tokenizer's matrix products (`torch.autocast`); None computes in the type of its weights.
        root: folder that relative paths of a list refer to.

    Raises:
        ValueError: a budget is out of range, or there are no videos.
    """

    def __init__(
        self,
        codec: AdapTok,
        measures: Measures,
        data: Path,
        *,
        budgets: Sequence[float] = (),
        scope: Scope = "video",
        protocol: ProtocolName = "all",
        batch_size: int = 4,
        root: Path | None = None,
        uniform: bool = True,
        effort: int = DEFAULT_EFFORT,
        fixed: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        config, layout = codec.config.tokenizer, codec.layout
        self.codec, self.root, self.batch_size = codec, collection_root(data, root), batch_size
        self.measures = replace(measures, patch_size=config.patch_size)
        scored = codec.config.scorer is not None
        min_budget = float(layout.length_step * layout.blocks)
        budgets = budgets or [max(min_budget, fraction * codec.max_budget) for fraction in BUDGET_FRACTIONS]
        batch = scope == "batch" and scored
        if batch and protocol != "all":
            budgets = [_tokens_per_clip(budget, layout) for budget in budgets]
        for budget in budgets:
            policy = LengthPolicy(budget, scope if scored else "video", uniform=not scored, effort=effort)
            policy.check(layout)
        self.autocast = autocast
        self.plan = Plan(
            kind="tokenizer",
            protocol=protocol,
            frames=config.frames,
            size=config.size,
            metrics=self.measures.all_metrics,
            detector=measures.detector_name,
            model=codec.config.name,
            model_hash=codec.weights_hash,
            scorer_hash=weights_hash(codec.model.state_dict(), "scorer.") if scored else None,
            dtype=str(codec.dtype).removeprefix("torch."),
            scope=scope,
            budgets=tuple(sorted(set(budgets))),
            batch_size=batch_size if batch else None,
            patch_size=self.measures.used_patch_size,
            uniform=uniform or fixed or not scored,
            patterns=RATIOS if fixed else (),
            effort=codec.used_effort(policy),
            autocast=None if autocast is None else str(autocast).removeprefix("torch."),
            unit=1 if protocol == "all" else batch_size if batch else VIDEOS_PER_UNIT,
            videos=plan_videos(data, root, by_path=protocol != "all"),
        )
        self.selection = ClipSelection(protocol, config.frames, config.size)
        self.tokens: TokenFormat | None = TokenFormat(config.quantizer.codebook_size, config.latents, config.frames)
        self.measured = measured_variants(self.plan)
        self.variants = list(dict.fromkeys(variant._replace(ratio=None) for variant in self.measured))
        if fixed:
            check_patterns(len(self.plan.videos), layout.blocks, self.plan.metrics)

    def measure(self, unit: int) -> PartialResult:
        """Measure one unit of the plan.

        The arrays are `ids` uint16 `[n, G, K]`; `lengths`, `predicted`, `actual` `[n, V, G]`; `metrics` `[n, V, M]`;
        and with a detector `features` `[n, 1 + V, F]`, the original's first. Unknown distortions are NaN.
        """
        clips = _Clips(self.plan.of_unit(unit), self.root, self.selection)
        seconds = dict.fromkeys(("encode", "decode", "measure"), 0.0)
        encoder = _Encoder(self)
        for batch in _batches(clips, self.batch_size):
            started = self._now()
            with self._precision():
                encoder.add([video for video, _ in batch], torch.stack([clip for _, clip in batch]))
            seconds["encode"] += self._now() - started
        arrays = {}
        if encoder.videos:
            arrays = encoder.arrays()
            arrays |= self._decode(clips, arrays["ids"], arrays["lengths"], seconds)
        return PartialResult(clips.records, arrays, seconds)

    def example(self, results: PartialResults, clip: ClipRank) -> Example:
        """Decode a clip from its measured token ids at up to four budgets."""
        result = PartialResult.load(results.path(clip.unit))
        row = slice(clip.place, clip.place + 1)
        ids = torch.from_numpy(result.arrays["ids"][row].astype(np.int64))
        main = [i for i, variant in enumerate(self.variants) if variant.name == self.variants[0].name]
        chosen = np.unique(np.linspace(0, len(main) - 1, min(MAX_EXAMPLE_BUDGETS, len(main))).round().astype(int))
        clips = [("original", self.selection.clip(self.root / clip.video, clip.clip))]
        for i in (main[index] for index in chosen):
            lengths = result.arrays["lengths"][row, i]
            psnr = result.arrays["metrics"][clip.place, i, self.plan.metrics.index("psnr")]
            name = f"{lengths.sum()} tokens ({' + '.join(map(str, lengths[0].tolist()))}), {psnr:.2f} dB"
            with self._precision():
                clips.append((name, self.codec.decode_clips(ids, lengths.tolist())[0].float().cpu()))
        return Example.of(clip, clips)

    def _decode(
        self, clips: _Clips, ids: NDArray[np.uint16], lengths: Lengths, seconds: dict[str, float]
    ) -> dict[str, NDArray[Any]]:
        rows: list[dict[str, NDArray[Any]]] = []
        for batch in _batches(clips, self.batch_size):
            rows_of_batch = slice(len(rows), len(rows) + len(batch))
            decoded = []
            started = self._now()
            for variant in range(len(self.measured)):
                kept = lengths[rows_of_batch, variant]
                tokens = torch.from_numpy(ids[rows_of_batch, :, : kept.max()].astype(np.int64))
                with self._precision():
                    decoded.append(self.codec.decode_clips(tokens, kept.tolist()).float().clamp(0, 1))
            seconds["decode"] += self._now() - started
            started = self._now()
            for index, (_, clip) in enumerate(batch):
                rows.append(self._compare(clip.to(self.codec.device), [batch_clips[index] for batch_clips in decoded]))
            seconds["measure"] += self._now() - started
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _compare(self, clip: Tensor, decoded: list[Tensor]) -> dict[str, NDArray[Any]]:
        """Measure metrics, features and actual distortions of every variant of a clip."""
        scorer, pt = self.codec.config.scorer, self.codec.config.tokenizer.temporal_patch_size
        lpips = self.measures.lpips.get("vgg")
        row: dict[str, NDArray[Any]] = {"metrics": np.stack([self.measures.clip(each, clip) for each in decoded])}
        if self.measures.detector is not None:
            made = [self.measures.features(each) for each in decoded]
            row["features"] = np.stack([self.measures.features(clip, real=True), *made])
        if scorer is None or (scorer.distortion == "lpips" and lpips is None):
            row["actual"] = np.full((len(decoded), clip.shape[1] // pt), np.nan)
        else:
            actual = [block_distortion(each[None], clip[None], scorer.distortion, pt, lpips)[0] for each in decoded]
            row["actual"] = torch.stack(actual).cpu().double().numpy()
        return row

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.codec.device.type, self.autocast, enabled=self.autocast is not None)

    def _now(self) -> float:
        """Seconds on a clock, after the device has finished its work."""
        synchronize(self.codec.device)
        return time.perf_counter()


class _Clips:
    """Clips of some videos, which can be iterated repeatedly. The first iteration fills `records`."""

    def __init__(self, videos: Iterable[PlannedVideo], root: Path, selection: ClipSelection) -> None:
        self.root, self.selection = root, selection
        self.records = [VideoRecord(video.path, video.label) for video in videos]
        self._kept: list[tuple[int, Tensor]] | None = []
        self._read = False

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Yield clips `[3, T, S, S]`, each with the index of its video."""
        if self._read and self._kept is not None:
            yield from self._kept
            return
        for index, record in enumerate(self.records):
            for clip in record.read(self.root / record.name, self.selection):
                if not self._read and self._kept is not None:
                    self._kept.append((index, clip))
                    if len(self._kept) > MAX_KEPT_CLIPS:
                        self._kept = None
                yield index, clip
        self._read = True


class _Encoder:
    """Token ids, scores and lengths of the clips of a unit, which are encoded batch by batch."""

    def __init__(self, evaluation: TokenizerEvaluation) -> None:
        self.codec, self.plan, self.variants = evaluation.codec, evaluation.plan, evaluation.measured
        self.scope = self.plan.scope or "video"
        self.videos: list[int] = []
        self._ids: list[NDArray[np.uint16]] = []
        self._scores: dict[int, list[Scores]] = {}  # of every adaptive variant of another scope
        self._chosen: dict[int, list[tuple[Lengths, Scores]]] = {}  # of every adaptive variant of a causal scope
        self._choosers: dict[tuple[int, int], LengthChooser] = {}

    def add(self, videos: list[int], clips: Tensor) -> None:
        """Encode the next clips `[b, 3, T, S, S]`, each of the video with this index."""
        encoded = self.codec.encode_clips(clips)
        self.videos += videos
        self._ids.append(encoded.ids.cpu().numpy().astype(np.uint16))
        if self.codec.config.scorer is None:
            return
        if self.scope in ("video", "clip"):
            self._score(encoded)
            return
        for i, variant in enumerate(self.variants):
            if variant.name == "adaptive":
                self._chosen.setdefault(i, []).extend(self._choose(encoded, videos, i))

    def _score(self, encoded: EncodedClips) -> None:
        """Score clips for every adaptive variant: once for all of them, unless scores depend on the budget."""
        scores: Scores | None = None
        for i, variant in enumerate(self.variants):
            if variant.name == "adaptive":
                if scores is None or self.plan.effort:
                    policy = LengthPolicy(variant.budget, self.scope, effort=self.plan.effort)
                    scores = self.codec.allocation_scores(encoded, policy).cpu().numpy()
                self._scores.setdefault(i, []).append(scores)

    def _choose(self, encoded: EncodedClips, videos: list[int], variant: int) -> Iterator[tuple[Lengths, Scores]]:
        """Choose lengths `[b, G]` and scores `[b, G, L]`; each block is scored given the lengths of earlier blocks."""
        policy, layout = LengthPolicy(self._block_budgets(variant), self.scope), self.codec.layout
        if self.scope == "batch":
            yield self.codec.choose_lengths(encoded, policy.chooser(layout))
            return
        for n, video in enumerate(videos):  # every video is a stream
            chooser = self._choosers.setdefault((variant, video), policy.chooser(layout))
            yield self.codec.choose_lengths(encoded.at(n), chooser)

    def _block_budgets(self, variant: int) -> float | tuple[int, ...]:
        """Budget of each block index where the official procedure defines one, else the budget of a clip."""
        budget, layout = self.variants[variant].budget or 0.0, self.codec.layout
        if self.scope == "batch" and self.plan.protocol != "all":
            return official_block_budgets(budget / layout.blocks, layout) or budget
        return budget

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Token ids, lengths and predicted distortions of all clips."""
        ids = np.concatenate(self._ids)
        shape = len(ids), len(self.variants), ids.shape[1]
        lengths, predicted = np.zeros(shape, np.int64), np.full(shape, np.nan)
        for i, variant in enumerate(self.variants):
            scores = np.concatenate(self._scores[i]) if i in self._scores else None
            if i in self._chosen:
                lengths[:, i], scores = (np.concatenate(each) for each in zip(*self._chosen[i], strict=True))
            else:
                lengths[:, i] = self._allocate(variant, scores, ids.shape[1])
            scorer = self.codec.config.scorer
            if variant.name == "adaptive" and scorer is not None and scorer.target == "block":
                assert scores is not None
                candidates = lengths[:, i, :, None] // self.codec.length_step - 1
                predicted[:, i] = np.take_along_axis(scores, candidates, 2)[..., 0]
        return {"ids": ids, "lengths": lengths, "predicted": predicted}

    def _allocate(self, variant: Variant, scores: Scores | None, blocks: int) -> Lengths:
        """Choose lengths `[n, G]`, for each video separately."""
        if variant.ratio is not None:
            assert variant.budget is not None
            pattern = pattern_lengths(variant.budget, variant.ratio, blocks, self.codec.layout.latents)
            return np.tile(pattern, (len(self.videos), 1))
        uniform = variant.name == "uniform"
        policy = LengthPolicy(variant.budget, "clip" if self.scope == "clip" else "video", uniform=uniform)
        videos, lengths = np.array(self.videos), []
        for video in dict.fromkeys(self.videos):
            own = videos == video
            rows = None if scores is None or uniform else scores[own].reshape(-1, scores.shape[-1])
            lengths.append(policy.lengths(rows, int(own.sum()) * blocks, self.codec.layout).reshape(-1, blocks))
        return np.concatenate(lengths)


def _tokens_per_clip(budget: float, layout: ClipLayout) -> float:
    """Convert a row of the official table, given by its mean tokens per block, to tokens per clip."""
    is_row = budget in OFFICIAL_BLOCK_BUDGETS and official_block_budgets(budget, layout) is not None
    return budget * layout.blocks if is_row else budget


def _batches(items: Iterable[tuple[int, Tensor]], size: int) -> Iterator[list[tuple[int, Tensor]]]:
    """Group items into lists of up to `size`."""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch
