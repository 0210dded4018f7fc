"""The commands evaluate and compare: workers, comparison of reports, samples against data."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from adaptok.cli.main import main
from adaptok.evaluation.comparison import compare_reports
from adaptok.evaluation.measures import Measures
from adaptok.evaluation.protocols import ClipSelection
from adaptok.metrics.frechet import FeatureStatistics, frechet_distance
from adaptok.utils.files import sha256_of
from tests.helpers.commands import fails, run
from tests.helpers.detector import Detector
from tests.helpers.videos import write_video


@pytest.fixture
def detector(tmp_path):
    """Flags that select the stand-in for the detector."""
    path = tmp_path / "detector.pt"
    torch.jit.script(Detector()).save(str(path))
    return "--fvd", path, "--fvd-sha256", sha256_of(path)


@pytest.fixture
def model(codec, tmp_path):
    codec.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("codec", [False], indirect=True)
def test_workers_change_nothing(model, detector, tmp_path, capsys):
    for name, count in (("a", 17), ("b", 9), ("c", 12)):
        write_video(tmp_path / "data" / f"{name}.mp4", count)
    flags = ["evaluate", tmp_path / "data", "--model", model, "--budgets", 12, 24, "--device", "cpu", *detector]
    metrics = ["--metrics", "psnr", "ssim", "edge_ratio", "sharpness", "fvd"]
    one = run(capsys, *flags, *metrics, "--out", tmp_path / "one")
    two = run(capsys, *flags, *metrics, "--out", tmp_path / "two", "--workers", 2)
    assert one["results"] == two["results"]
    assert one["data"] == two["data"]
    assert one["metrics"] == metrics[1:]
    assert one["protocol"]["patch_size"] == 4  # the model's
    assert (tmp_path / "two" / "report.html").exists()
    compared = compare_reports(tmp_path / "one", tmp_path / "two")
    assert compared.same_clips
    for result in compared.results:
        for name, found in result.metrics.items():
            assert found.difference == 0
            assert found.better is None
            assert (found.low, found.high) == ((0, 0) if name in metrics[1:-1] else (None, None))
    assert "holds an evaluation with other budgets" in fails(
        capsys, "evaluate", tmp_path / "data", "--model", model, "--budgets", 16, "--out", tmp_path / "one",
        "--device", "cpu", *detector, *metrics,
    )  # fmt: skip


def write_report(folder, psnr, videos, budget=8.0, sha="0", **others):
    """Write a report of version 1 of the format, of clips with the given PSNR and other metrics."""
    folder.mkdir()
    clips = {"video": videos, "clip": range(len(videos)), "budget": [budget] * len(videos), "psnr": psnr, **others}
    pq.write_table(pa.table({name: pa.array(values) for name, values in clips.items()}), folder / "metrics.parquet")
    result = {"budget": budget, "way": "adaptive", "adaptive": {"psnr": float(np.mean(psnr)), "tokens_per_clip": 7.5}}
    document = {
        "format": "adaptok-report",
        "version": 1,
        "kind": "tokenizer",
        "protocol": {"name": "all", "frames": 8, "size": 16, "scope": "video"},
        "model": {"name": folder.name},
        "data": {"originals_sha256": sha, "videos": len(set(videos)), "clips": len(videos)},
        "metrics": ["psnr", *others],
        "results": [result],
    }
    (folder / "report.json").write_text(json.dumps(document))
    return folder


def test_comparison(tmp_path, capsys):
    """A small difference is significant for the same clips and not for other clips; a video counts once."""
    rng = np.random.default_rng(0)
    videos = [f"{n // 4}" for n in range(160)]
    level = rng.normal(25, 5, 40).repeat(4)
    a = write_report(tmp_path / "a", level, videos)
    b = write_report(tmp_path / "b", level + rng.normal(0.3, 0.2, 40).repeat(4), videos)
    other = write_report(tmp_path / "other", level + 0.3, videos, sha="1")
    found = run(capsys, "compare", a, b)["results"][0]["metrics"]["psnr"]
    assert found["difference"] == pytest.approx(found["b"] - found["a"])
    assert 0 < found["low"] < found["difference"] < found["high"]
    assert found["better"] == "b"
    deviation = (level[::4] * 0 + rng.normal(0.3, 0.2, 40)).std() / np.sqrt(40)  # of the mean over 40 videos
    assert (found["high"] - found["low"]) / 2 == pytest.approx(1.96 * deviation, rel=0.4)
    apart = compare_reports(a, other).results[0].metrics["psnr"]
    assert apart.low < 0 < apart.high
    assert apart.better is None
    assert compare_reports(b, a).results[0].metrics["psnr"].better == "a"
    assert run(capsys, "compare", a, b) == run(capsys, "compare", a, b)
    main(["compare", str(a), str(b), "--out", str(tmp_path / "page.html")])
    assert "bootstrap" in (tmp_path / "page.html").read_text()
    assert "adaptok evaluate" in fails(capsys, "compare", a, tmp_path / "nowhere")
    elsewhere = write_report(tmp_path / "elsewhere", level, videos, budget=9.0)
    assert "nothing in common" in fails(capsys, "compare", a, elsewhere)


def test_comparison_of_measures_of_patches(tmp_path, capsys):
    """A lower edge ratio is better, sharpness has no direction; clips without a value are left out."""
    videos = [f"{n // 2}" for n in range(80)]
    psnr = np.full(80, 25.0)
    sharp = np.random.default_rng(0).uniform(0.6, 0.8, 80).tolist()
    old = write_report(tmp_path / "old", psnr, videos)
    a = write_report(tmp_path / "a", psnr, videos, edge_ratio=[1.5] * 79 + [None], sharpness=sharp)
    more = [None] + [x + 0.1 for x in sharp[1:]]
    b = write_report(tmp_path / "b", psnr, videos, edge_ratio=[None] + [1.2] * 79, sharpness=more)
    found = run(capsys, "compare", a, b)["results"][0]["metrics"]
    assert (found["edge_ratio"]["a"], found["edge_ratio"]["b"]) == pytest.approx((1.5, 1.2))
    assert found["edge_ratio"]["better"] == "b"
    assert found["sharpness"]["low"] == pytest.approx(0.1)
    assert found["sharpness"]["a"] == pytest.approx(np.mean(sharp[1:]))  # of the clips that both know
    assert found["sharpness"]["better"] is None
    assert list(run(capsys, "compare", old, b)["results"][0]["metrics"]) == ["psnr", "tokens_per_clip"]
    main(["compare", str(a), str(b), "--out", str(tmp_path / "page.md")])
    assert "edge ratio" in (tmp_path / "page.md").read_text()


def test_samples_against_data(detector, tmp_path, capsys):
    """The distance of two collections is that of their features; stored statistics can replace the data."""
    for side, counts in (("data", (17, 18, 9)), ("samples", (16, 19, 20, 21))):
        for index, count in enumerate(counts):
            write_video(tmp_path / side / f"{'ab'[index % 2]}/{index}.mp4", count)
    flags = ["evaluate", "--samples", tmp_path / "samples", "--device", "cpu", *detector]
    found = run(capsys, *flags, tmp_path / "data", "--count", 4, "--out", tmp_path / "out")
    sides = []
    for side in ("data", "samples"):
        clips = [next(ClipSelection("official", 16, 128).clips(p)) for p in sorted((tmp_path / side).rglob("*.mp4"))]
        sides.append(FeatureStatistics.of([Measures(detector=Detector()).features(clip) for clip in clips]))
    assert found["fvd"] == pytest.approx(frechet_distance(*sides), rel=1e-6)
    assert found["data"]["label_distance"] == pytest.approx(2 / 3 - 1 / 2)
    again = run(capsys, *flags, "--count", 4, "--statistics", tmp_path / "out" / "statistics-reference.safetensors")
    assert again["fvd"] == found["fvd"]
    assert "4 samples, the protocol takes 10000; make more, or give --count 4" in fails(
        capsys, *flags, tmp_path / "data"
    )
    assert "size 128, the samples have 64" in fails(
        capsys, *flags, "--generation", "frame", "--count", 4,
        "--statistics", tmp_path / "out" / "statistics-reference.safetensors",
    )  # fmt: skip
