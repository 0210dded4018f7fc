"""What follows from partial results: means, curves, use of the codebook, calibration, in one pass and bounded memory.

Legend: `n` clips of a part, `V` variants, `M` metrics, `G` blocks of a clip, `K` latents of a block.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptok.evaluation.measures import DIRECTIONS
from adaptok.evaluation.partial_results import Part, VideoRecord
from adaptok.metrics.correlation import rank_correlation
from adaptok.metrics.frechet import FeatureStatistics, frechet_distance

Floats = NDArray[np.float64]

SHOWN = 3
"""Clips that are shown of the best, and of the worst."""
_BIN = math.log(1.005)
"""Distortions within half a percent count as equal where ranks are compared: memory stays bounded."""
_SMALLEST, _LARGEST = 1e-9, 1e3
_CURVE = 12
"""Points of a calibration curve."""


class Way(NamedTuple):
    """One way to make clips: a budget, None where there is none, and "adaptive", "uniform" or "prediction"."""

    budget: float | None
    name: str


@dataclass(frozen=True)
class Tokens:
    """What bits are counted from: entries of the codebook, latents of a block, frames of a clip."""

    codebook: int
    latents: int
    frames: int


@dataclass
class Calibration:
    """Predicted against actual distortions, added up."""

    count: int = 0
    relative: float = 0.0
    bias: float = 0.0
    cells: Counter[tuple[int, int]] = field(default_factory=Counter)
    sums: dict[int, tuple[int, float, float]] = field(default_factory=dict)

    def add(self, predicted: Floats, actual: Floats) -> None:
        """More of them, `[n]` each; those that are not known are left out."""
        known = np.isfinite(predicted) & np.isfinite(actual) & (actual > 0)
        predicted, actual = predicted[known], actual[known]
        self.count += len(predicted)
        self.relative += float(np.abs(predicted / actual - 1).sum())
        self.bias += float((predicted / actual - 1).sum())
        rows, columns = (_bins(values) for values in (predicted, actual))
        self.cells.update(zip(rows.tolist(), columns.tolist(), strict=True))
        for place, p, a in zip(rows.tolist(), predicted.tolist(), actual.tolist(), strict=True):
            n, ps, as_ = self.sums.get(place, (0, 0.0, 0.0))
            self.sums[place] = n + 1, ps + p, as_ + a

    def document(self) -> dict[str, Any] | None:
        """Figures, and the curve of mean actual over mean predicted distortion; None without blocks."""
        if not self.count:
            return None
        return {
            "blocks": self.count,
            "rank_correlation": self._rank_correlation(),
            "mean_relative_error": self.relative / self.count,
            "mean_relative_bias": self.bias / self.count,
            "curve": self._curve(),
        }

    def _rank_correlation(self) -> float:
        """Spearman's, from the counts of pairs of bins."""
        predicted, actual, counts = zip(*((*cell, count) for cell, count in sorted(self.cells.items())), strict=True)
        return rank_correlation(predicted, actual, counts)

    def _curve(self) -> list[dict[str, float]]:
        points: list[dict[str, float]] = []
        n, predicted, actual = 0, 0.0, 0.0
        for _, (count, p, a) in sorted(self.sums.items()):
            n, predicted, actual = n + count, predicted + p, actual + a
            if n >= self.count / _CURVE:
                points.append({"blocks": n, "predicted": predicted / n, "actual": actual / n})
                n, predicted, actual = 0, 0.0, 0.0
        if n:
            points.append({"blocks": n, "predicted": predicted / n, "actual": actual / n})
        return points


def _bins(values: Floats) -> NDArray[np.int64]:
    return np.floor(np.log(values.clip(_SMALLEST, _LARGEST)) / _BIN).astype(np.int64)


@dataclass
class WaySums:
    """Everything that is added up of one way."""

    metrics: Floats
    tokens: int = 0
    lengths: NDArray[np.int64] | None = None
    by_block: NDArray[np.int64] | None = None
    ids: NDArray[np.int64] | None = None
    calibration: Calibration = field(default_factory=Calibration)
    statistics: FeatureStatistics | None = None


class Clip(NamedTuple):
    """A clip that is worth a look."""

    psnr: float
    video: str
    clip: int
    unit: int
    place: int
    """Among the clips of its unit."""


class Summary:
    """Adds up parts, which come in the order of the plan.

    Args:
        ways: in the order of the parts' variants.
        metrics: in the order of the parts' columns.
        tokens: for models; None for folders of videos.
        provenance: of the features.
    """

    def __init__(
        self, ways: Sequence[Way], metrics: Sequence[str], tokens: Tokens | None, provenance: dict[str, Any]
    ) -> None:
        self.ways, self.metrics, self.tokens, self.provenance = list(ways), list(metrics), tokens, provenance
        self.sums = [WaySums(np.zeros(len(metrics))) for _ in ways]
        self.original: FeatureStatistics | None = None
        self.clips, self.video_seconds, self.memory = 0, 0.0, 0
        self.defined = np.zeros(len(metrics), np.int64)
        """Clips that each metric is a finite number for, in all ways; its means are over these."""
        self.videos, self.units = 0, 0
        self.seconds: Counter[str] = Counter()
        self.skipped: dict[str, str] = {}
        self.warnings: dict[str, str] = {}
        self.labels: Counter[str] = Counter()
        mains = [i for i, way in enumerate(ways) if way.name != "uniform"] or list(range(max(len(ways), 1)))
        self.shown_way = mains[(len(mains) - 1) // 2]
        """Whose best and worst clips are shown: the main way at the middle budget."""
        self._best: list[tuple[float, int, Clip]] = []
        self._worst: list[tuple[float, int, Clip]] = []

    def add(self, part: Part, frames: int) -> None:
        """The next part; `frames` of a clip."""
        unit, self.units = self.units, self.units + 1
        self.memory = max(self.memory, part.memory)
        self.seconds.update(part.seconds)
        for video in part.videos:
            self._add_video(video, frames)
        if not part.clips:
            return
        self.clips += part.clips
        if "metrics" in part.arrays:
            self._add_metrics(part.arrays["metrics"])
        for i, sums in enumerate(self.sums):
            if "lengths" in part.arrays:
                self._add_tokens(sums, i, part)
        if "features" in part.arrays:
            self._add_features(part.arrays["features"])
        if "psnr" in self.metrics:
            self._rank(part, unit)

    def _add_video(self, video: VideoRecord, frames: int) -> None:
        if video.skipped is not None:
            self.skipped[video.name] = video.skipped
            return
        self.videos += 1
        self.video_seconds += video.clips * frames / video.clip_rate
        if video.label is not None:
            self.labels[video.label] += video.clips
        if video.warning is not None:
            self.warnings[video.name] = video.warning

    def _add_metrics(self, metrics: Floats) -> None:
        """`[n, V, M]`. Every way leaves out the same clips, so that their means compare."""
        defined = np.isfinite(metrics).all(1)  # [n, M]
        self.defined += defined.sum(0)
        for i, sums in enumerate(self.sums):
            sums.metrics += np.where(defined, metrics[:, i], 0.0).sum(0)

    def _add_tokens(self, sums: WaySums, i: int, part: Part) -> None:
        assert self.tokens is not None
        lengths, ids = part.arrays["lengths"][:, i], part.arrays["ids"]  # [n, G], [n, G, K]
        if sums.lengths is None or sums.by_block is None or sums.ids is None:
            sums.lengths = np.zeros(self.tokens.latents + 1, np.int64)
            sums.by_block = np.zeros(lengths.shape[1], np.int64)
            sums.ids = np.zeros(self.tokens.codebook, np.int64)
        sums.tokens += int(lengths.sum())
        sums.lengths += np.bincount(lengths.ravel(), minlength=len(sums.lengths))
        sums.by_block += lengths.sum(0)
        kept = ids[np.arange(ids.shape[2]) < lengths[..., None]]
        sums.ids += np.bincount(kept, minlength=len(sums.ids))
        sums.calibration.add(part.arrays["predicted"][:, i].ravel(), part.arrays["actual"][:, i].ravel())

    def _add_features(self, features: NDArray[np.float32]) -> None:
        """`[n, 1 + V, F]`, or `[n, 1, F]` of originals alone; rows of clips that are too short are NaN."""
        features = features[np.isfinite(features).all((1, 2))]
        if not len(features):
            return
        found = [FeatureStatistics.of(features[:, i], self.provenance) for i in range(features.shape[1])]
        self.original = found[0] if self.original is None else self.original.merged(found[0])
        for sums, statistics in zip(self.sums, found[1:], strict=False):
            sums.statistics = statistics if sums.statistics is None else sums.statistics.merged(statistics)

    def _rank(self, part: Part, unit: int) -> None:
        values = part.arrays["metrics"][:, self.shown_way, self.metrics.index("psnr")].tolist()
        for index, ((video, clip), value) in enumerate(zip(clip_names(part), values, strict=True)):
            if not math.isfinite(value):
                continue
            number = self.clips - part.clips + index
            found = Clip(value, video.name, clip, unit, index)
            heapq.heappush(self._best, (value, -number, found))
            heapq.heappush(self._worst, (-value, -number, found))
            for heap in (self._best, self._worst):
                if len(heap) > SHOWN:
                    heapq.heappop(heap)

    @property
    def best(self) -> list[Clip]:
        """Clips of the highest PSNR, the best first."""
        return [clip for _, _, clip in sorted(self._best, reverse=True)]

    @property
    def worst(self) -> list[Clip]:
        """Clips of the lowest PSNR, the worst first."""
        return [clip for _, _, clip in sorted(self._worst, reverse=True)]

    @property
    def undefined(self) -> dict[str, int]:
        """The number of clips that a metric is infinite or NaN for, of metrics with such clips."""
        counts = dict(zip(self.metrics, (self.clips - self.defined).tolist(), strict=True))
        return {name: count for name, count in counts.items() if count}

    def results(self) -> list[dict[str, Any]]:
        """One object for each budget: `budget`, `way`, the figures of every way, gain, saving, calibration."""
        documents: dict[float | None, dict[str, Any]] = {}
        for i, way in enumerate(self.ways):
            entry = documents.setdefault(way.budget, {"budget": way.budget, "way": way.name})
            entry[way.name] = self._figures(i)
        entries = list(documents.values())
        for entry in entries:
            if entry["way"] == "adaptive":
                entry["gain"] = gain(entry["adaptive"], entry["uniform"])
                entry["saving"] = {m: saving(entries, entry, m) for m in entry["gain"]}
        return entries

    def _figures(self, i: int) -> dict[str, Any]:
        sums = self.sums[i]
        figures: dict[str, Any] = {
            name: float(value) / int(count) if count else None
            for name, value, count in zip(self.metrics, sums.metrics, self.defined, strict=True)
        }
        if self.original is not None and sums.statistics is not None:
            known = min(self.original.count, sums.statistics.count) > 1
            figures["fvd"] = frechet_distance(self.original, sums.statistics) if known else None
        if self.tokens is None or sums.lengths is None or sums.by_block is None or sums.ids is None:
            return figures
        blocks = int(sums.lengths.sum())
        bits = sums.tokens * math.log2(self.tokens.codebook) + blocks * math.log2(self.tokens.latents + 1)
        return {
            **figures,
            "tokens_per_clip": sums.tokens / self.clips,
            "tokens_per_second": sums.tokens / self.video_seconds,
            "bits_per_clip": bits / self.clips,
            "bits_per_second": bits / self.video_seconds,
            "lengths": {
                "histogram": {str(n): int(count) for n, count in enumerate(sums.lengths) if count},
                "mean": sums.tokens / blocks,
                "by_block": (sums.by_block / self.clips).tolist(),
            },
            "codebook": codebook_use(sums.ids),
            "calibration": sums.calibration.document(),
        }


def clip_names(part: Part) -> Iterator[tuple[VideoRecord, int]]:
    """Video and number within it of every clip of a part."""
    return ((video, clip) for video in part.videos for clip in range(video.clips))


def codebook_use(counts: NDArray[np.int64]) -> dict[str, float | int]:
    """Entries that occur, and the entropy of their distribution in bits."""
    used = counts[counts > 0] / max(int(counts.sum()), 1)
    entropy = float(-(used * np.log2(used)).sum()) if len(used) else 0.0
    return {
        "size": len(counts),
        "tokens": int(counts.sum()),
        "used": len(used),
        "used_share": len(used) / len(counts),
        "entropy": entropy,
        "perplexity": 2**entropy,
    }


def gain(adaptive: dict[str, Any], uniform: dict[str, Any]) -> dict[str, float]:
    """How much better the adaptive way is at the same budget, above 0 where it is; of metrics that have a direction."""
    return {
        name: (adaptive[name] - uniform[name]) * direction
        for name, direction in DIRECTIONS.items()
        if direction and adaptive.get(name) is not None and uniform.get(name) is not None
    }


def saving(entries: list[dict[str, Any]], entry: dict[str, Any], metric: str) -> dict[str, float] | None:
    """Tokens that even lengths would need for the quality of the adaptive ones, linear between the measured budgets.

    None where their curve does not reach it: it needs a larger, or smaller, budget.
    """
    sign = DIRECTIONS[metric]
    known = [e["uniform"] for e in entries if e["uniform"][metric] is not None]
    points = sorted((sign * figures[metric], figures["tokens_per_clip"]) for figures in known)
    wanted = sign * entry["adaptive"][metric]
    if not points[0][0] <= wanted <= points[-1][0]:
        return None
    needed = float(np.interp(wanted, [quality for quality, _ in points], [tokens for _, tokens in points]))
    spent = entry["adaptive"]["tokens_per_clip"]
    return {"uniform_tokens": needed, "more": needed / spent - 1, "saved": 1 - spent / needed}
