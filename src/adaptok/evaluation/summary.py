"""Figures of an evaluation, accumulated from partial results in one pass and bounded memory.

Legend: `n` clips of a partial result, `V` variants, `M` metrics, `G` blocks of a clip, `K` latents of a block.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptok.evaluation.calibration import Calibration
from adaptok.evaluation.measures import METRICS
from adaptok.evaluation.partial_results import PartialResult, PartialResults, VideoRecord
from adaptok.evaluation.plan import Plan
from adaptok.evaluation.results import (
    BudgetResult,
    ClipRank,
    CodebookUse,
    Examples,
    Figures,
    LengthStatistics,
    Saving,
    Speed,
    Variant,
)
from adaptok.metrics.frechet import FeatureStatistics, frechet_distance, frechet_interval

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EXAMPLES = 3
"""Number of best and of worst clips."""


@dataclass(frozen=True)
class TokenFormat:
    """Sizes that bits are counted from: entries of the codebook, latents of a block, frames of a clip."""

    codebook: int
    latents: int
    frames: int

    def bits(self, tokens: int, blocks: int) -> float:
        """Bits of tokens, and of the lengths of their blocks."""
        return tokens * math.log2(self.codebook) + blocks * math.log2(self.latents + 1)


class TokenTotals:
    """Lengths and token ids of one variant.

    Attributes:
        lengths: number of blocks of every length `[K + 1]`.
        by_block: tokens of every block index `[G]`.
        ids: number of occurrences of every codebook entry.
    """

    def __init__(self, tokens: TokenFormat, blocks: int) -> None:
        self.lengths, self.by_block, self.ids = (
            np.zeros(n, np.int64) for n in (tokens.latents + 1, blocks, tokens.codebook)
        )
        self.calibration = Calibration()

    def add(self, result: PartialResult, variant: int) -> None:
        """Add the clips of a partial result."""
        lengths, ids = result.arrays["lengths"][:, variant], result.arrays["ids"]  # [n, G], [n, G, K]
        self.lengths += np.bincount(lengths.ravel(), minlength=len(self.lengths))
        self.by_block += lengths.sum(0)
        kept = ids[np.arange(ids.shape[2]) < lengths[..., None]]
        self.ids += np.bincount(kept, minlength=len(self.ids))
        self.calibration.add(*(result.arrays[name][:, variant].ravel() for name in ("predicted", "actual")))

    def figures(self, tokens: TokenFormat, clips: int, seconds: float) -> dict[str, Any]:
        """Figures of that many clips and seconds."""
        total, blocks = int(self.by_block.sum()), int(self.lengths.sum())
        bits = tokens.bits(total, blocks)
        return {
            "tokens_per_clip": total / clips,
            "tokens_per_second": total / seconds,
            "bits_per_clip": bits / clips,
            "bits_per_second": bits / seconds,
            "lengths": LengthStatistics(
                histogram={n: int(count) for n, count in enumerate(self.lengths) if count},
                mean=total / blocks,
                by_block=(self.by_block / clips).tolist(),
            ),
            "codebook": codebook_use(self.ids),
            "calibration": self.calibration.result(),
        }


class Summary:
    """Totals of partial results, which are added in the order of the plan.

    Args:
        plan: plan of the evaluation.
        variants: in the order of the partial results.
        tokens: sizes of the tokens of a model; None for folders of videos.
    """

    def __init__(self, plan: Plan, variants: Sequence[Variant], tokens: TokenFormat | None) -> None:
        self.variants, self.tokens = list(variants), tokens
        self.metrics = [name for name in plan.metrics if name != "fvd"]
        self._frames = plan.frames
        self._decodings = len(self.variants) + len(plan.budgets) * max(0, len(plan.patterns) - 1)
        self._provenance = {name: getattr(plan, name) for name in ("detector", "protocol", "frames", "size")}
        self.statistics: list[FeatureStatistics] = []
        """Statistics of the originals, then of every variant; empty without features."""
        self.features: list[NDArray[np.float32]] = []
        """Features `[n, 1 + V, F]` of the clips of each partial result, 1.6 kB for a clip of I3D."""
        self.feature_videos: list[str] = []
        """Video of every clip with features."""
        self.clips, self.videos, self.units = 0, 0, 0
        self.video_seconds, self.memory = 0.0, 0
        self.seconds: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.warnings: dict[str, str] = {}
        self.labels: Counter[str] = Counter()
        self._sums = np.zeros((len(self.variants), len(self.metrics)))
        self._defined = np.zeros(len(self.metrics), np.int64)
        self._tokens: list[TokenTotals] = []
        main = [i for i, variant in enumerate(variants) if variant.name == variants[0].name] or [0]
        self._ranked = main[(len(main) - 1) // 2]  # the main variant at the middle budget
        self._best: list[tuple[float, int, ClipRank]] = []
        self._worst: list[tuple[float, int, ClipRank]] = []

    def add(self, result: PartialResult) -> None:
        """Add the next partial result."""
        unit, self.units = self.units, self.units + 1
        self.memory = max(self.memory, result.memory)
        self.seconds.update(result.seconds)
        for video in result.videos:
            self._add_video(video)
        if not result.clips:
            return
        self.clips += result.clips
        if "metrics" in result.arrays:
            self._add_metrics(result.arrays["metrics"])
        if "lengths" in result.arrays:
            self._add_tokens(result)
        if "features" in result.arrays:
            self._add_features(result.arrays["features"], [video.name for video, _ in clip_names(result)])
        if "psnr" in self.metrics:
            self._rank(result, unit)

    def _add_video(self, video: VideoRecord) -> None:
        if video.skipped is not None:
            self.skipped[video.name] = video.skipped
            return
        self.videos += 1
        self.video_seconds += video.clips * self._frames / video.fps
        if video.label is not None:
            self.labels[video.label] += video.clips
        if video.warning is not None:
            self.warnings[video.name] = video.warning

    def _add_metrics(self, metrics: Floats) -> None:
        """Add `[n, V, M]`. All variants leave out the same clips, so that their means are comparable."""
        defined = np.logical_and.reduce(np.isfinite(metrics), axis=1)  # [n, M]
        self._defined += defined.sum(0)
        self._sums += np.where(defined[:, None], metrics, 0.0).sum(0)

    def _add_tokens(self, result: PartialResult) -> None:
        assert self.tokens is not None
        if not self._tokens:
            blocks = result.arrays["lengths"].shape[2]
            self._tokens = [TokenTotals(self.tokens, blocks) for _ in self.variants]
        for i, totals in enumerate(self._tokens):
            totals.add(result, i)

    def _add_features(self, features: NDArray[np.float32], videos: Sequence[str]) -> None:
        """Add `[n, 1 + V, F]`, or `[n, 1, F]` of originals alone; clips that are too short are NaN."""
        whole = np.array([np.isfinite(clip).all() for clip in features])
        features = features[whole]
        if len(features):
            self.features.append(features)
            self.feature_videos += [video for video, known in zip(videos, whole, strict=True) if known]
            new = [FeatureStatistics.of(features[:, i], self._provenance) for i in range(features.shape[1])]
            old = self.statistics
            self.statistics = [a.merged(b) for a, b in zip(old, new, strict=True)] if old else new

    def _rank(self, result: PartialResult, unit: int) -> None:
        values = result.arrays["metrics"][:, self._ranked, self.metrics.index("psnr")].tolist()
        for index, ((video, clip), value) in enumerate(zip(clip_names(result), values, strict=True)):
            if not math.isfinite(value):
                continue
            order = result.clips - self.clips - index  # earlier clips first
            rank = ClipRank(psnr=value, video=video.name, clip=clip, unit=unit, place=index)
            for heap, key in ((self._best, value), (self._worst, -value)):
                heapq.heappush(heap, (key, order, rank))
                if len(heap) > EXAMPLES:
                    heapq.heappop(heap)

    @property
    def examples(self) -> Examples:
        """The clips of the highest and of the lowest PSNR, the most extreme first."""
        best, worst = ([rank for *_, rank in sorted(heap, reverse=True)] for heap in (self._best, self._worst))
        return Examples(best=best, worst=worst)

    @property
    def undefined(self) -> dict[str, int]:
        """Number of clips without a finite value of a metric, for each metric that has such clips."""
        counts = dict(zip(self.metrics, (self.clips - self._defined).tolist(), strict=True))
        return {name: count for name, count in counts.items() if count}

    def speed(self) -> Speed:
        """Clips per second of each kind of work, and the peak memory of a process."""
        rates: dict[str, Any] = {
            f"{name}_clips_per_second": self.clips * (1 if name == "encode" else self._decodings) / seconds
            for name, seconds in self.seconds.items()
            if seconds > 0
        }
        return Speed(seconds=dict(self.seconds), memory_gb=self.memory / 1e9, **rates)

    def results(self) -> list[BudgetResult]:
        """Figures of every budget."""
        entries: dict[float | None, dict[str, Figures]] = {}
        for i, variant in enumerate(self.variants):
            entries.setdefault(variant.budget, {})[variant.name] = self._figures(i)
        curve = [figures["uniform"] for figures in entries.values() if "uniform" in figures]
        results = []
        for budget, figures in entries.items():
            values: dict[str, Any] = {"budget": budget, "variant": next(iter(figures)), **figures}
            if "adaptive" in figures and "uniform" in figures:
                values["gain"] = gain(figures["adaptive"], figures["uniform"])
                values["saving"] = {name: saving(curve, figures["adaptive"], name) for name in values["gain"]}
            if "adaptive" in figures and "fixed" in figures:
                values["gain_over_fixed"] = gain(figures["adaptive"], figures["fixed"])
            results.append(BudgetResult(**values))
        return results

    def _figures(self, i: int) -> Figures:
        figures: dict[str, Any] = {
            name: float(value) / int(count) if count else None
            for name, value, count in zip(self.metrics, self._sums[i], self._defined, strict=True)
        }
        if self.statistics:
            original, own = self.statistics[0], self.statistics[1 + i]
            figures["fvd"] = frechet_distance(original, own) if original.count > 1 else None
            if original.count > 1:
                a, b = (np.concatenate([each[:, side] for each in self.features]) for side in (1 + i, 0))
                groups = (self.feature_videos, self.feature_videos)
                figures["fvd_interval"] = frechet_interval(a, b, groups=groups, paired=True)
        if self._tokens:
            assert self.tokens is not None
            figures |= self._tokens[i].figures(self.tokens, self.clips, self.video_seconds)
        return Figures(**figures)


def summarize(results: PartialResults, variants: Sequence[Variant], tokens: TokenFormat | None) -> Summary:
    """Add up all partial results in the order of the plan.

    Raises:
        ValueError: no clip could be measured.
    """
    summary = Summary(results.plan, variants, tokens)
    for result in results:
        summary.add(result)
    if not summary.clips:
        first = next(iter(summary.skipped.items()), None)
        reason = "" if first is None else f"; the first of {len(summary.skipped)}: {first[0]}: {first[1]}"
        raise ValueError(f"no clip could be measured{reason}")
    return summary


def clip_names(result: PartialResult) -> Iterator[tuple[VideoRecord, int]]:
    """Video, and number within it, of every clip of a partial result."""
    return ((video, clip) for video in result.videos for clip in range(video.clips))


def codebook_use(counts: Integers) -> CodebookUse:
    """Use of the codebook, from the number of occurrences of every entry."""
    fractions = counts[counts > 0] / max(int(counts.sum()), 1)
    entropy = float(-(fractions * np.log2(fractions)).sum()) if len(fractions) else 0.0
    return CodebookUse(
        size=len(counts),
        tokens=int(counts.sum()),
        used=len(fractions),
        used_fraction=len(fractions) / len(counts),
        entropy=entropy,
        perplexity=2**entropy,
    )


def gain(adaptive: Figures, uniform: Figures) -> dict[str, float]:
    """Advantage of adaptive over other lengths at the same budget, positive if they are better, of metrics with a
    direction."""
    gains = {}
    for name, info in METRICS.items():
        a, b = adaptive.value(name), uniform.value(name)
        if info.direction and a is not None and b is not None:
            gains[name] = (a - b) * info.direction
    return gains


def saving(curve: Sequence[Figures], adaptive: Figures, metric: str) -> Saving | None:
    """Tokens that uniform lengths need for the quality of adaptive ones, linear between the measured budgets.

    Args:
        curve: figures of uniform lengths at all budgets.
        adaptive: figures of adaptive lengths at one budget.

    Returns:
        None if the curve does not reach that quality: it needs a larger, or smaller, budget.
    """
    sign = METRICS[metric].direction
    quality, tokens = adaptive.value(metric), adaptive.tokens_per_clip
    assert quality is not None
    assert tokens is not None
    values = [(figures.value(metric), figures.tokens_per_clip or 0.0) for figures in curve]
    qualities, costs = zip(*sorted((sign * value, cost) for value, cost in values if value is not None), strict=True)
    if not qualities[0] <= sign * quality <= qualities[-1]:
        return None
    needed = float(np.interp(sign * quality, qualities, costs))
    return Saving(uniform_tokens=needed, more=needed / tokens - 1, saved=1 - tokens / needed)
