"""Comparison of reports."""

from __future__ import annotations

import numpy as np
import pytest

from adaptok.cli.main import main
from adaptok.evaluation.comparison import compare_reports
from tests.helpers.commands import fails, run
from tests.helpers.evaluation import write_report


def test_comparison(tmp_path, capsys):
    """A small difference is significant for the same clips and not for other clips; a video counts once."""
    rng = np.random.default_rng(0)
    videos = [f"{n // 4}" for n in range(160)]
    level = rng.normal(25, 5, 40).repeat(4)
    a = write_report(tmp_path / "a", level, videos)
    b = write_report(tmp_path / "b", level + rng.normal(0.3, 0.2, 40).repeat(4), videos)
    other = write_report(tmp_path / "other", level + 0.3, videos, sha="1")
    result = run(capsys, "compare", a, b)["results"][0]["metrics"]["psnr"]
    assert result["difference"] == pytest.approx(result["b"] - result["a"])
    assert 0 < result["low"] < result["difference"] < result["high"]
    assert result["better"] == "b"
    deviation = (level[::4] * 0 + rng.normal(0.3, 0.2, 40)).std() / np.sqrt(40)  # of the mean over 40 videos
    assert (result["high"] - result["low"]) / 2 == pytest.approx(1.96 * deviation, rel=0.4)
    apart = compare_reports(a, other).results[0].metrics["psnr"]
    assert apart.low < 0 < apart.high
    assert apart.better is None
    assert compare_reports(b, a).results[0].metrics["psnr"].better == "a"
    assert run(capsys, "compare", a, b) == run(capsys, "compare", a, b)
    main(["compare", str(a), str(b), "--output", str(tmp_path / "page.html")])
    assert "bootstrap" in (tmp_path / "page.html").read_text()
    assert "adaptok evaluate" in fails(capsys, "compare", a, tmp_path / "nowhere")
    elsewhere = write_report(tmp_path / "elsewhere", level, videos, budgets=(9.0,))
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
    result = run(capsys, "compare", a, b)["results"][0]["metrics"]
    assert (result["edge_ratio"]["a"], result["edge_ratio"]["b"]) == pytest.approx((1.5, 1.2))
    assert result["edge_ratio"]["better"] == "b"
    assert result["sharpness"]["low"] == pytest.approx(0.1)
    assert result["sharpness"]["a"] == pytest.approx(np.mean(sharp[1:]))  # of the clips that both know
    assert result["sharpness"]["better"] is None
    assert list(run(capsys, "compare", old, b)["results"][0]["metrics"]) == ["psnr", "tokens_per_clip"]
    main(["compare", str(a), str(b), "--output", str(tmp_path / "page.md")])
    assert "edge ratio" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(("change", "better"), [(0.0, None), (1e-9, None), (0.004, None), (0.006, "b"), (-0.006, "a")])
def test_no_report_is_better_by_less_than_the_shown_digits(tmp_path, change, better):
    """PSNR is shown with two decimal places. The same change in every clip has an interval of width 0."""
    videos, level = [f"{n}" for n in range(20)], np.random.default_rng(0).normal(25, 5, 20)
    a, b = (write_report(tmp_path / name, psnr, videos) for name, psnr in (("a", level), ("b", level + change)))
    assert compare_reports(a, b).results[0].metrics["psnr"].better == better


def test_budgets_of_one_report_are_listed_and_drawn(tmp_path, capsys):
    videos, level = [f"{n}" for n in range(4)], np.full(4, 25.0)
    a = write_report(tmp_path / "a", level, videos, budgets=(8.0, 16.0, 32.0, 64.0))
    b = write_report(tmp_path / "b", level + 1, videos, budgets=(8.0, 9.5, 16.0))
    comparison = compare_reports(a, b)
    assert [result.budget for result in comparison.results] == [8, 16]
    assert (comparison.only_a, comparison.only_b) == ([32, 64], [9.5])
    assert comparison.curves["psnr"].a == [(7.5, 25), (15.5, 25), (31.5, 25), (63.5, 25)]
    assert comparison.curves["psnr"].b == [(7.5, 26), (9.0, 26), (15.5, 26)]
    main(["compare", str(a), str(b), "--output", str(tmp_path / "page.html")])
    printed, page = capsys.readouterr().out, (tmp_path / "page.html").read_text()
    for text in (printed, page):
        assert "Only A has the budgets 32 and 64." in text
        assert "Only B has the budget 9.5." in text
    assert page.count("<svg") == 1
    assert all(text in page for text in ("A a", "B b", "tokens per clip", "PSNR of clips (dB)"))
