"""Fréchet distance: the golden value, distances that are known, and statistics that are merged and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from adaptok.metrics.frechet import FeatureStatistics, frechet_distance, frechet_interval, merge

GOLDEN = Path(__file__).parents[1] / "fixtures" / "frechet_golden.safetensors"


def statistics(seed, count=40, features=6, scale=1.0):
    return FeatureStatistics.of(np.random.default_rng(seed).normal(size=(count, features)) * scale)


def test_golden():
    golden = load_file(GOLDEN)
    real, made = (FeatureStatistics.of(golden[f"features_{name}"]) for name in ("real", "generated"))
    assert frechet_distance(real, made) == pytest.approx(golden["frechet_distance"].item(), rel=1e-6)
    assert frechet_distance(made, real) == pytest.approx(golden["frechet_distance"].item(), rel=1e-6)
    assert frechet_distance(real, real) == 0


def test_distances_that_are_known():
    """Shifted sets, scaled sets, and fewer clips than features."""
    features = np.random.default_rng(0).normal(size=(50, 8))
    for count in (50, 5):
        part = features[:count]
        one = FeatureStatistics.of(part)
        assert frechet_distance(one, FeatureStatistics.of(part + 3)) == pytest.approx(9 * 8, rel=1e-9)
        centred = FeatureStatistics.of(part - part.mean(0))
        twice = FeatureStatistics.of(2 * (part - part.mean(0)))
        assert frechet_distance(centred, twice) == pytest.approx(np.trace(centred.covariance), rel=1e-9)
        again = FeatureStatistics.of(part[::-1])  # the same set, other roundings
        assert frechet_distance(one, again) == pytest.approx(0, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.floats(-1e4, 1e4))
def test_parts_merged_are_the_whole(counts, shift):
    features = np.random.default_rng(1).normal(size=(sum(counts), 5)) + shift
    whole = FeatureStatistics.of(features)
    merged = merge(FeatureStatistics.of(part) for part in np.split(features, np.cumsum(counts)[:-1]))
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-9)
    scale = np.abs(whole.covariance).max()
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-9, atol=1e-9 * scale)


def test_kept_and_used_again(tmp_path):
    one = FeatureStatistics.of(np.random.default_rng(2).normal(size=(9, 4)), {"detector": "a", "size": 64})
    one.save(tmp_path / "one.safetensors")
    back = FeatureStatistics.load(tmp_path / "one.safetensors")
    assert back.count == 9
    assert back.provenance == {"detector": "a", "size": 64}
    assert frechet_distance(one, back) == 0
    other = FeatureStatistics.of(np.random.default_rng(3).normal(size=(9, 4)), {"detector": "b"})
    with pytest.raises(ValueError, match="'a' and 'b' do not mix"):
        frechet_distance(one, other)


def test_mistakes(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a file of feature statistics"):
        FeatureStatistics.load(tmp_path / "x.safetensors")
    with pytest.raises(FileNotFoundError, match="no such file"):
        FeatureStatistics.load(tmp_path / "y.safetensors")
    with pytest.raises(ValueError, match="at least two of each"):
        frechet_distance(statistics(0, 1), statistics(1))
    with pytest.raises(ValueError, match="6 and 5 features"):
        frechet_distance(statistics(0), statistics(1, features=5))
    with pytest.raises(ValueError, match="NaN or infinite"):
        FeatureStatistics.of(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="no statistics to merge"):
        merge([])


def test_bootstrap_interval():
    """The interval holds the distance and narrows with the number of clips; equal paired sets have no spread."""
    rng = np.random.default_rng(0)
    widths = []
    for count in (20, 200):
        a, b = rng.normal(0, 1, (count, 5)), rng.normal(0.5, 1, (count, 5))
        low, high = frechet_interval(a, b)
        value = frechet_distance(FeatureStatistics.of(a), FeatureStatistics.of(b))
        assert low < value < high
        widths.append(high - low)
        fixed = frechet_interval(a, FeatureStatistics.of(b))
        assert fixed[0] < value < fixed[1]
    assert widths[1] < widths[0] / 2
    assert frechet_interval(a, a, paired=True) == pytest.approx((0, 0), abs=1e-9)
    one_group = (["x"] * 200, ["y"] * 200)
    assert frechet_interval(a, b, groups=one_group) == pytest.approx((value, value))
    few = rng.normal(0, 1, (2, 4, 30))  # fewer clips than features
    low, high = frechet_interval(*few)
    assert low <= frechet_distance(*map(FeatureStatistics.of, few)) <= high
