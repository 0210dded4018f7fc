"""FVD of generated videos."""

from __future__ import annotations

import pytest

from adaptok.evaluation.protocols import ClipSelection
from adaptok.metrics.frechet import FeatureStatistics, frechet_distance
from tests.helpers.commands import fails, run
from tests.helpers.detector import detector_flags
from tests.helpers.evaluation import measures
from tests.helpers.videos import write_video


def test_samples_against_data(tmp_path, capsys):
    """The distance of two collections is that of their features; stored statistics can replace the data."""
    for side, counts in (("data", (17, 18, 9)), ("samples", (16, 19, 20, 21))):
        for index, count in enumerate(counts):
            write_video(tmp_path / side / f"{'ab'[index % 2]}/{index}.mp4", count)
    flags = ["--samples", tmp_path / "samples", "--device", "cpu", *detector_flags(tmp_path)]
    result = run(capsys, "evaluate", "generation", tmp_path / "data", *flags, "--count", 4, "-o", tmp_path / "out")
    sides = []
    for side in ("data", "samples"):
        clips = [next(ClipSelection("official", 16, 128).clips(p)) for p in sorted((tmp_path / side).rglob("*.mp4"))]
        sides.append(FeatureStatistics.of([measures().features(clip) for clip in clips]))
    assert result["fvd"] == pytest.approx(frechet_distance(*sides), rel=1e-6)
    assert result["data"]["label_distance"] == pytest.approx(2 / 3 - 1 / 2)
    statistics = "--statistics", tmp_path / "out" / "statistics-reference.safetensors"
    again = run(capsys, "evaluate", "generation", *flags, "--count", 4, *statistics)
    assert again["fvd"] == result["fvd"]
    error = fails(capsys, "evaluate", "generation", tmp_path / "data", *flags)
    assert "4 samples, the protocol takes 10000; make more, or give --count 4" in error
    error = fails(capsys, "evaluate", "prediction", *flags, "--count", 4, *statistics)
    assert "size 128, the samples have 64" in error
