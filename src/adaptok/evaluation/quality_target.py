"""Find the fewest tokens of a video that reach a quality, by decoding it at several budgets.

A policy with a target distortion trusts the scores. Here the quality is measured, in units that people know, so it is
reached as asked, at the cost of decoding the video several times. The video is encoded only once: see
`find_quality`.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
import torch

from adaptok.allocation.policy import LengthPolicy, Lengths
from adaptok.codec.codec import AdapTok, Progress
from adaptok.codec.length_selection import require_scorer
from adaptok.codec.token_file import VideoTokens
from adaptok.config.choices import Scope
from adaptok.evaluation.reconstruction import iter_pairs
from adaptok.metrics.distortion import psnr
from adaptok.metrics.lpips import Lpips, clip_lpips
from adaptok.video.limits import DEFAULT_LIMITS, Limits
from adaptok.video.sources import Video

QualityMetric = Literal["psnr", "lpips"]
Trial = Callable[[float], AbstractContextManager[Progress | None]]
"""Called with a budget before it is measured; gives the function that reports the number of frames just measured."""
_TOLERANCE: dict[QualityMetric, float] = {"psnr": 0.02, "lpips": 0.002}
"""Excess over a target at which the search stops. It is smaller than what anybody can see."""


@dataclass(frozen=True)
class QualityTarget:
    """Mean quality that a reconstruction should have, at the scale of the model.

    Args:
        metric: "psnr" is the PSNR in dB, from the mean squared error over the whole video. "lpips" is the LPIPS
            distance with VGG16, averaged over frames.
        value: The smallest PSNR, or the largest distance.

    Raises:
        ValueError: The metric is unknown, or the value is not a finite number above 0.
    """

    metric: QualityMetric
    value: float

    def __post_init__(self) -> None:
        if self.metric not in get_args(QualityMetric):
            raise ValueError(f"metric {self.metric!r}, expected one of {', '.join(get_args(QualityMetric))}")
        if not (math.isfinite(self.value) and self.value > 0):
            raise ValueError(f"target {self.describe(self.value)}, expected a finite number above 0")

    def excess(self, value: float) -> float:
        """Return how much better a value is than the target; negative if it is worse."""
        return value - self.value if self.metric == "psnr" else self.value - value

    def describe(self, value: float) -> str:
        """Return a value of the metric as text."""
        return f"PSNR {value:.4g} dB" if self.metric == "psnr" else f"LPIPS {value:.3g}"


@dataclass(frozen=True)
class QualityResult:
    """Tokens that a search has found.

    Attributes:
        target: The quality that was asked for.
        tokens: The tokens; all of the video if even they do not reach the target.
        budget: Their budget in tokens per clip.
        value: Measured value of the metric.
    """

    target: QualityTarget
    tokens: VideoTokens
    budget: float
    value: float

    @property
    def reached(self) -> bool:
        """Whether the target is reached."""
        return self.target.excess(self.value) >= 0

    def describe(self) -> str:
        """Describe the result in a few words."""
        return f"{self.target.describe(self.value)} at a budget of {self.budget:.4g} tokens per clip"


def find_quality(
    codec: AdapTok,
    video: Video,
    tokens: VideoTokens,
    target: QualityTarget,
    *,
    scope: Scope = "video",
    uniform: bool = False,
    lpips: Lpips | None = None,
    batch_size: int = 4,
    start: float = 0.0,
    stop: float | None = None,
    fps: Fraction | float | None = None,
    limits: Limits = DEFAULT_LIMITS,
    trial: Trial = lambda _: nullcontext(),
) -> QualityResult:
    """Shorten the tokens of a video to the smallest budget whose reconstruction reaches a quality.

    Budgets differ by one token per clip. Where allocations differ by more, because lengths are multiples of the length
    step and the video is short, lengths between two allocations are interpolated. The search assumes that more tokens
    do not make a reconstruction worse. It stops early at a budget that exceeds the target by
    at most 0.02 dB, or 0.002 of LPIPS.

    Args:
        codec: The model.
        video: The video. It is read once for every budget that is tried, so it must not be a stream.
        tokens: All of its tokens, with scores: `codec.encode(video, ...)` without a budget.
        target: The quality.
        scope: Which blocks share a budget, "video" or "clip".
        uniform: Distribute budgets evenly, without looking at the scores.
        lpips: Network of the metric "lpips".
        batch_size: Clips computed at once.
        start, stop, fps, limits: As for `codec.encode`.
        trial: Called with each budget that is tried.

    Raises:
        ValueError: The scope is causal, the model lacks the scorer that adaptive lengths need, or the metric "lpips"
            lacks its network.
    """
    if scope not in ("video", "clip"):
        raise ValueError(f"a quality target with the scope {scope!r}, expected video or clip")
    if not uniform:
        require_scorer(codec.model)
    shorten = _Shortener(codec, tokens, scope, uniform)
    options: dict[str, Any] = {"start": start, "stop": stop, "fps": fps, "limits": limits, "batch_size": batch_size}

    def measure(budget: float) -> float:
        with trial(budget) as progress:
            shortened = shorten(budget)
            return measure_quality(codec, video, shortened, target.metric, lpips=lpips, progress=progress, **options)

    budget, value = find_budget(measure, target, budget_levels(codec))
    return QualityResult(target, shorten(budget), budget, value)


class _Shortener:
    """Shortens all tokens of a video to any budget."""

    def __init__(self, codec: AdapTok, tokens: VideoTokens, scope: Scope, uniform: bool) -> None:
        self.codec, self.tokens, self.scope, self.uniform = codec, tokens, scope, uniform
        step, clips = codec.length_step, len(tokens.lengths) / codec.layout.blocks
        self._spacing = 1.0 if uniform else float(step) if scope == "clip" else max(1.0, step / clips)

    def __call__(self, budget: float) -> VideoTokens:
        """Return the tokens at a budget."""
        lowest = budget_levels(self.codec)[0]
        steps, part = divmod((budget - lowest) / self._spacing, 1.0)
        low = self._lengths(lowest + steps * self._spacing)
        high = self._lengths(lowest + (steps + 1) * self._spacing) if part else low
        return self.tokens.shorten(np.floor(low + part * (high - low)).astype(np.int64))

    def _lengths(self, budget: float) -> Lengths:
        """Return the lengths of an allocation."""
        if budget >= self.codec.max_budget:  # also of the tokens that the scorer expects no gain from
            return self.tokens.lengths
        return self.codec.shorten(self.tokens, LengthPolicy(budget, self.scope, uniform=self.uniform)).lengths


def budget_levels(codec: AdapTok) -> Sequence[float]:
    """Return the budgets between which a search chooses, in ascending order; the last one keeps all tokens."""
    return range(codec.length_step * codec.layout.blocks, codec.max_budget + 1)


def find_budget(
    measure: Callable[[float], float], target: QualityTarget, budgets: Sequence[float]
) -> tuple[float, float]:
    """Find the smallest budget whose quality reaches a target, if the quality does not fall with the budget.

    Args:
        measure: Returns the value of the target's metric at a budget. No budget is measured twice.
        target: The quality.
        budgets: Budgets in ascending order.

    Returns:
        The budget and its value: those of the largest budget if it does not reach the target.
    """
    values = {len(budgets) - 1: measure(budgets[-1])}
    low, high = 0, len(budgets) - 1
    if high and target.excess(values[high]) >= 0:
        values[low] = measure(budgets[low])
        if target.excess(values[low]) >= 0:
            high = low
    halve = False
    while high - low > 1 and low in values and target.excess(values[high]) > _TOLERANCE[target.metric]:
        below, above = target.excess(values[low]), target.excess(values[high])
        fraction = 0.5 if halve else below / (below - above)
        guess = budgets[low] * (budgets[high] / budgets[low]) ** fraction  # PSNR is about linear in log(tokens)
        middle = min(max(bisect_left(budgets, guess), low + 1), high - 1)
        values[middle], width = measure(budgets[middle]), high - low
        low, high = (middle, high) if target.excess(values[middle]) < 0 else (low, middle)
        halve = high - low > width / 2  # interpolation alone may approach the target from one side in small steps
    return budgets[high], values[high]


def measure_quality(
    codec: AdapTok,
    video: Video,
    tokens: VideoTokens,
    metric: QualityMetric,
    *,
    lpips: Lpips | None = None,
    batch_size: int = 4,
    start: float = 0.0,
    stop: float | None = None,
    fps: Fraction | float | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> float:
    """Measure the mean quality of the decoded tokens of a video. Arguments as for `find_quality`.

    Raises:
        ValueError: The metric "lpips" lacks its network.
    """
    if metric == "lpips" and lpips is None:
        raise ValueError("the metric 'lpips' needs a network; give Lpips.from_file(...)")
    values: list[float] = []
    pairs = iter_pairs(codec, video, [tokens], batch_size=batch_size, start=start, stop=stop, fps=fps, limits=limits)
    for original, [decoded] in pairs:
        made = decoded[:, : original.shape[1]]
        if lpips is None or metric == "psnr":
            values += (made - original).square().mean((0, 2, 3)).tolist()
        else:
            frames = (clip[None].to(codec.device) for clip in (made, original))
            values += clip_lpips(lpips, *frames)[0].tolist()
        if progress is not None:
            progress(original.shape[1])
    mean = torch.tensor(values).mean()
    return float(psnr(mean) if metric == "psnr" else mean)
