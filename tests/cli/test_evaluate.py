"""The command evaluate: processes, and bad input."""

from __future__ import annotations

import pytest

from adaptok.cli.main import main
from adaptok.evaluation.comparison import compare_reports
from tests.helpers.commands import fails, run
from tests.helpers.detector import detector_flags
from tests.helpers.videos import write_video


@pytest.mark.parametrize("codec", [False], indirect=True)
def test_workers_change_nothing(codec, tmp_path, capsys):
    model, detector = tmp_path / "model", detector_flags(tmp_path)
    codec.save_pretrained(model)
    for name, count in (("a", 17), ("b", 9), ("c", 12)):
        write_video(tmp_path / "data" / f"{name}.mp4", count)
    flags = ["evaluate", "reconstruction", tmp_path / "data", "--model", model, "--device", "cpu", *detector]
    metrics = ["--metrics", "psnr", "ssim", "edge_ratio", "sharpness", "fvd"]
    budgets = ["--budget", 12, 24]
    one = run(capsys, *flags, *budgets, *metrics, "-o", tmp_path / "one")
    two = run(capsys, *flags, *budgets, *metrics, "-o", tmp_path / "two", "--workers", 2)
    assert one["results"] == two["results"]
    assert one["data"] == two["data"]
    assert one["metrics"] == metrics[1:]
    assert one["protocol"]["patch_size"] == 4  # the model's
    assert (tmp_path / "two" / "report.html").exists()
    compared = compare_reports(tmp_path / "one", tmp_path / "two")
    assert compared.same_clips
    for result in compared.results:
        for name, actual in result.metrics.items():
            assert actual.difference == 0
            assert actual.better is None
            assert (actual.low, actual.high) == ((0, 0) if name in metrics[1:-1] else (None, None))
    error = fails(capsys, *flags, *metrics, "--budget", 16, "-o", tmp_path / "one")
    assert "holds an evaluation with other budgets" in error


def test_bad_input(codec, tmp_path, capsys):
    codec.save_pretrained(tmp_path / "model")
    data = tmp_path / "data"
    write_video(data / "x.mp4", 16)
    model = ["--model", tmp_path / "model"]
    for arguments, words in (
        (["reconstruction", *model], "expected DATA"),
        (["reconstruction", tmp_path / "nowhere", *model], "no such folder or list of files"),
        (["reconstruction", tmp_path / "model", *model], ": no videos, expected .avi"),
        (["reconstruction", data, *model, "--budget", 1000], "budget 1000.0, expected 8 to 32 tokens per clip"),
        (["reconstruction", data, *model, "--metrics", "lpips_vgg", "--lpips-vgg", "x.pth"], "x.pth: no such file"),
        (["reconstruction", data, *model, "--patch-size", 8], "--patch-size"),
        (["files", "--reference", data], "--prediction"),
        (["files", "--reference", data, "--prediction", data, "--patch-size", 1], "--patch-size 1, expected 2"),
        (["generation", data, "--samples", data, "--statistics", "x"], "with DATA or with --statistics"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["evaluate", *map(str, arguments), "--quiet"])
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
