"""The fewest tokens that reach a measured quality."""

from __future__ import annotations

import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from adaptok import AdapTok, LengthPolicy
from adaptok.evaluation import quality_target
from adaptok.evaluation.quality_target import (
    QualityTarget,
    find_budget,
    find_quality,
    measure_quality,
)
from adaptok.evaluation.reconstruction import compare
from tests.helpers.models import random_model, small_config


@pytest.fixture(scope="module")
def video() -> torch.Tensor:
    """Three clips, the last of which is shorter."""
    return torch.rand(1, 3, 20, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def codec() -> AdapTok:
    return AdapTok(random_model(small_config()), "")


def distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """A distance of frames, in place of the network."""
    return (first - second).abs().mean((1, 2, 3))


def curves(bend: float):
    """Qualities that rise with the budget, steeply at first or at last."""
    return lambda budget: 10 + 20 * ((budget - 63) / (768 - 63)) ** bend


@pytest.mark.parametrize("bend", [0.1, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("target", [5.0, 13.0, 20.0, 29.9, 30.0])
def test_search_finds_the_smallest_budget_in_few_steps(bend, target):
    budgets, measured = [float(budget) for budget in range(64, 769)], []

    def measure(budget):
        assert budget not in measured
        measured.append(budget)
        return curves(bend)(budget)

    found, value = find_budget(measure, QualityTarget("psnr", target), budgets)
    best = next(budget for budget in budgets if curves(bend)(budget) >= target)
    assert value == curves(bend)(found) >= target
    assert best == found or value - target < 0.02  # invisible
    assert len(measured) <= 2 * math.log2(len(budgets))


def test_search_for_a_distance_that_falls():
    budgets, falling = range(64, 769, 16), lambda budget: 0.7 - curves(0.5)(budget) / 50
    found, value = find_budget(falling, QualityTarget("lpips", 0.3), budgets)
    assert found == next(budget for budget in budgets if falling(budget) <= 0.3)
    assert value == falling(found)


@pytest.mark.parametrize("budgets", [[768.0], [64.0, 768.0], [float(budget) for budget in range(64, 769)]])
def test_the_largest_budget_is_returned_if_none_reaches_the_target(budgets):
    assert find_budget(curves(1), QualityTarget("psnr", 31.0), budgets) == (768.0, 30.0)


@pytest.mark.parametrize(("scope", "uniform"), [("video", False), ("clip", False), ("video", True)])
def test_a_real_model_reaches_what_some_budget_reaches(codec, video, scope, uniform):
    full, tried = codec.encode(video), []

    @contextmanager
    def trial(budget):
        tried.append(budget)
        yield lambda frames: None

    options = {"scope": scope, "uniform": uniform}
    all_tokens = measure_quality(codec, video, full, "psnr")
    easy = find_quality(codec, video, full, QualityTarget("psnr", 0.5), **options)
    assert (easy.budget, easy.reached) == (8, True)
    # PSNR of a random model need not rise with the budget: take a target between its ends
    target = QualityTarget("psnr", min(all_tokens, (easy.value + all_tokens) / 2))
    found = find_quality(codec, video, full, target, trial=trial, **options)
    assert found.reached
    assert tried[0] == 32
    [report] = compare(codec, video, [found.tokens])
    assert found.value == pytest.approx(report.psnr)
    if found.budget < 32 and (scope == "video" or found.budget % 2 == 0):  # otherwise interpolated
        assert found.tokens.lengths.tolist() == codec.encode(video, found.budget, **options).lengths.tolist()
    impossible = find_quality(codec, video, full, QualityTarget("psnr", 99), **options)
    assert not impossible.reached
    assert impossible.tokens == full
    assert impossible.describe() == f"PSNR {all_tokens:.4g} dB at a budget of 32 tokens per clip"


@pytest.mark.parametrize("target", [9, 13, 14])
def test_lengths_of_short_videos_are_interpolated(codec, video, target, monkeypatch):
    """Allocations of one clip differ by 2 tokens, the length step."""
    monkeypatch.setattr(quality_target, "measure_quality", lambda codec, video, tokens, *_, **__: tokens.tokens)
    full = codec.encode(video[:, :, :8])
    found = find_quality(codec, video[:, :, :8], full, QualityTarget("psnr", target))
    assert (found.budget, found.tokens.tokens) == (target, target)
    low, high = (codec.shorten(full, LengthPolicy(each)).lengths for each in (target - target % 2, target + target % 2))
    assert (found.tokens.lengths >= np.minimum(low, high)).all()
    assert (found.tokens.lengths <= np.maximum(low, high)).all()


def test_lpips_is_the_mean_over_frames(codec, video):
    full = codec.encode(video)
    clips = torch.cat(list(codec.iter_decode_clips(full)), 1)[:, :20]
    expected = distance(clips.transpose(0, 1), video[0].transpose(0, 1)).mean()
    assert measure_quality(codec, video, full, "lpips", lpips=distance) == pytest.approx(float(expected))
    with pytest.raises(ValueError, match="'lpips' needs a network"):
        measure_quality(codec, video, full, "lpips")


def test_mistakes(codec, video):
    for metric, value in (("psnr", math.nan), ("lpips", 0.0)):
        with pytest.raises(ValueError, match="expected a finite number above 0"):
            QualityTarget(metric, value)
    with pytest.raises(ValueError, match="metric 'ssim', expected one of psnr, lpips"):
        QualityTarget("ssim", 0.9)
    full = codec.encode(video)
    with pytest.raises(ValueError, match="scope 'stream', expected video or clip"):
        find_quality(codec, video, full, QualityTarget("psnr", 20.0), scope="stream")
    alone = AdapTok(random_model(small_config().model_copy(update={"scorer": None})), "")
    with pytest.raises(ValueError, match="has no scorer"):
        find_quality(alone, video, full, QualityTarget("psnr", 20.0))
