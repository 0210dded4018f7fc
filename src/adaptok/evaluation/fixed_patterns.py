"""Fixed patterns of lengths, a baseline of adaptive lengths.

The first block of a clip helps to decode the others, so it deserves more tokens in any video. Uniform lengths ignore
that, and adaptive lengths look good beside them for this reason alone. A fixed pattern gives block i the same length in
every clip: the first block is `ratio` times as long as each of the others. The ratio is the best one on the *other*
videos of the collection, so nothing of a video decides its own lengths. All ratios are measured, and the choice is made
when the results are complete.

Legend: `n` clips of a partial result, `V` variants, `C` candidates at one budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from adaptok.evaluation.measures import METRICS
from adaptok.evaluation.partial_results import PartialResult, PartialResults
from adaptok.evaluation.plan import Plan
from adaptok.evaluation.results import Variant, VariantName

RATIOS = (1.5, 2.0, 3.0, 4.0)
"""Lengths of the first block relative to the others. Ratio 1, uniform lengths, is measured in any case."""
_MIN_VIDEOS = 2


def check_patterns(videos: int, blocks: int, metrics: Sequence[str]) -> None:
    """Raise a ValueError if patterns cannot be fitted to that many videos, blocks of a clip, and metrics."""
    if blocks < 2:
        raise ValueError(f"fixed patterns of clips of {blocks} block, expected a model with several blocks per clip")
    _check_videos(videos)
    _fitted_metric(metrics)


def pattern_lengths(budget: float, ratio: float, blocks: int, latents: int) -> list[int]:
    """Return the lengths of the blocks of a clip, which add up to the budget, rounded down.

    Args:
        budget: Tokens per clip.
        ratio: Length of the first block relative to each of the others. It is smaller where the first block would need
            more tokens than it has.
        blocks: Blocks per clip, at least 2.
        latents: Largest length of a block.
    """
    total = int(budget + 1e-9)
    first = min(latents, round(total * ratio / (ratio + blocks - 1)), total - (blocks - 1))
    rest, more = divmod(total - first, blocks - 1)
    return [first, *(rest + (i < more) for i in range(blocks - 1))]


def measured_variants(plan: Plan) -> list[Variant]:
    """Return what is measured of every clip: the variants of a tokenizer's plan, and every ratio of the patterns."""
    measured: dict[VariantName, bool] = {"adaptive": plan.scorer_hash is not None, "uniform": plan.uniform}
    variants = [Variant(budget, name) for budget in plan.budgets for name in measured if measured[name]]
    return variants + [Variant(budget, "fixed", ratio) for budget in plan.budgets for ratio in plan.patterns]


class FittedResults(PartialResults):
    """Partial results whose patterns are replaced by one variant "fixed" per budget, with the ratio that fits best.

    The variants before the patterns keep their places, so that the files of the results can be used for them.

    Args:
        results: Complete results of a plan with patterns.

    Raises:
        ValueError: Fewer than two videos could be measured.
    """

    def __init__(self, results: PartialResults) -> None:
        self.folder, self.plan = results.folder, results.plan
        measured = measured_variants(self.plan)
        self.variants = list(dict.fromkeys(variant._replace(ratio=None) for variant in measured))
        """The variants that the results have."""
        self._kept = [i for i, variant in enumerate(measured) if variant.name != "fixed"]
        self._candidates = [
            [i for i, each in enumerate(measured) if each.budget == budget and each.name in ("uniform", "fixed")]
            for budget in self.plan.budgets
        ]
        self._chosen = self._fit()

    def __iter__(self) -> Iterator[PartialResult]:
        return (self._collapse(result) for result in super().__iter__())

    def _fit(self) -> dict[str, list[int]]:
        """Choose a candidate of each budget for every video: the one with the best mean over clips of other videos."""
        name = _fitted_metric(self.plan.metrics)
        metric, sign = self.plan.metrics.index(name), METRICS[name].direction
        sums: dict[str, NDArray[np.float64]] = {}
        counts: dict[str, int] = {}
        for result in super().__iter__():
            for video, values in zip(_videos(result), result.arrays.get("metrics", []), strict=True):
                own = sign * values[:, metric]
                if not np.isfinite(own).all():  # means leave out such a clip, too
                    own, counts[video] = np.zeros(len(own)), counts.get(video, 0) - 1
                sums[video], counts[video] = sums.get(video, 0.0) + own, counts.get(video, 0) + 1
        _check_videos(len(sums))
        total, clips = sum(sums.values()), sum(counts.values())
        means = {video: (total - own) / max(1, clips - counts[video]) for video, own in sums.items()}
        return {
            video: [candidates[int(np.argmax(values[candidates]))] for candidates in self._candidates]
            for video, values in means.items()
        }

    def _collapse(self, result: PartialResult) -> PartialResult:
        """Keep the chosen candidates `[n, V, ...]` of every clip."""
        if not result.clips:
            return result
        columns = np.array([[*self._kept, *self._chosen[video]] for video in _videos(result)])  # [n, V]
        rows, arrays = np.arange(len(columns))[:, None], dict(result.arrays)
        for name in {"lengths", "predicted", "actual", "metrics"} & arrays.keys():
            arrays[name] = arrays[name][rows, columns]
        if "features" in arrays:  # those of the original come first
            columns = np.concatenate([np.zeros((len(columns), 1), int), columns + 1], 1)
            arrays["features"] = arrays["features"][rows, columns]
        return replace(result, arrays=arrays)


def _videos(result: PartialResult) -> list[str]:
    """Return the video of every clip."""
    return [video.name for video in result.videos for _ in range(video.clips)]


def _check_videos(videos: int) -> None:
    if videos < _MIN_VIDEOS:
        raise ValueError(f"{videos} video, expected {_MIN_VIDEOS} or more: fixed patterns are fitted on other videos")


def _fitted_metric(metrics: Sequence[str]) -> str:
    """Return the metric that patterns are fitted by: PSNR, or else the first one of clips that has a direction."""
    directed = [name for name in metrics if METRICS[name].direction and name != "fvd"]
    if not directed:
        raise ValueError(f"metrics {', '.join(metrics)}, expected one such as psnr to fit fixed patterns by")
    return "psnr" if "psnr" in directed else directed[0]
