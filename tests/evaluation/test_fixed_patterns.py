"""Fixed patterns of lengths: a baseline that is fitted on other videos."""

from __future__ import annotations

import numpy as np
import pytest

from adaptok.evaluation.comparison import compare_reports
from adaptok.evaluation.fixed_patterns import FittedResults, measured_variants, pattern_lengths
from adaptok.evaluation.partial_results import PartialResult, PartialResults, VideoRecord
from adaptok.evaluation.plan import Plan, PlannedVideo
from adaptok.evaluation.results import Variant, read_report
from tests.helpers.commands import fails, run
from tests.helpers.videos import write_video


@pytest.mark.parametrize(
    ("budget", "ratio", "expected"),
    [
        (96, 3, [48, 16, 16, 16]),
        (96.9, 3, [48, 16, 16, 16]),
        (384, 3, [192, 64, 64, 64]),
        (100, 2, [40, 20, 20, 20]),
        (8, 1.5, [3, 2, 2, 1]),
        (700, 4, [192, 170, 169, 169]),  # the first block has no more
        (768, 2, [192, 192, 192, 192]),
        (4, 4, [1, 1, 1, 1]),
    ],
)
def test_lengths_of_a_pattern_add_up_to_the_budget(budget, ratio, expected):
    assert pattern_lengths(budget, ratio, 4, 192) == expected


def plan_of(names, metrics=("psnr",), **changes):
    values = {"kind": "tokenizer", "protocol": "all", "frames": 8, "size": 16, "detector": None, "metrics": metrics}
    values |= {"scorer_hash": "0", "budgets": (8.0, 16.0), "patterns": (2.0, 3.0), **changes}
    return Plan(videos=tuple(PlannedVideo(path=name) for name in names), **values)


def results_of(folder, plan, rows):
    """Partial results with the clips of one video each: `rows` are the metrics `[clips, variants, metrics]`."""
    results = PartialResults(folder, plan)
    for unit, metrics in enumerate(rows):
        metrics = np.array(metrics, float)
        clips, variants = metrics.shape[:2]
        numbers = np.broadcast_to(np.arange(variants)[:, None], (clips, variants, 4))
        features = np.broadcast_to(np.arange(variants + 1.0)[:, None], (clips, variants + 1, 2))
        arrays = {"metrics": metrics, "lengths": numbers, "features": features.astype(np.float32)}
        video = VideoRecord(plan.videos[unit].path, clips=clips, rate="30/1")
        PartialResult([video], arrays).save(results.path(unit))
    return results


def test_the_ratio_of_a_video_is_fitted_on_the_others(tmp_path):
    plan = plan_of("abc")
    assert measured_variants(plan) == [
        *(Variant(budget, name) for budget in (8.0, 16.0) for name in ("adaptive", "uniform")),
        *(Variant(budget, "fixed", ratio) for budget in (8.0, 16.0) for ratio in (2.0, 3.0)),
    ]
    # PSNR of adaptive and uniform lengths at 8 and at 16 tokens, then of ratios 2 and 3 at 8 and at 16
    a = [[30, 20, 31, 20, 9, 25, 21, 22]] * 2
    b = [[30, 20, 31, 24, 23, 10, 21, 20]]
    c = [[30, 20, 31, 20, 21, 22, 19, 18]] * 3
    rows = [[[[value] for value in clip] for clip in video] for video in (a, b, c)]
    fitted = FittedResults(results_of(tmp_path, plan, rows))
    assert fitted.variants == [*measured_variants(plan)[:4], Variant(8.0, "fixed"), Variant(16.0, "fixed")]
    chosen = [result.arrays["lengths"][:, 4:, 0].tolist() for result in fitted]
    # means of the others at 8: for a 21, 21.5, 19, for b 20, 16.2, 23.2, for c 21.3, 13.7, 20; at 16, uniform is best
    assert chosen == [[[4, 3]] * 2, [[5, 3]], [[1, 3]] * 3]
    for result, video in zip(fitted, rows, strict=True):
        places = result.arrays["lengths"][..., 0]
        np.testing.assert_array_equal(result.arrays["features"][..., 0], np.pad(places + 1, ((0, 0), (1, 0))))
        np.testing.assert_array_equal(
            result.arrays["metrics"], np.take_along_axis(np.array(video), places[..., None], 1)
        )


def test_other_metrics_are_fitted_in_their_direction(tmp_path):
    plan = plan_of("ab", ("sharpness", "lpips_vgg"), budgets=(8.0,), patterns=(2.0,))
    rows = [[[[1, 0.1], [1, 0.3], [9, 0.2]]]] * 2
    fitted = FittedResults(results_of(tmp_path, plan, rows))
    assert [result.arrays["lengths"][0, -1, 0] for result in fitted] == [2, 2]


def test_clips_without_a_number_do_not_count(tmp_path):
    plan = plan_of("abc", budgets=(8.0,), patterns=(2.0,))
    rows = [[[[30], [20], [21]]], [[[30], [np.inf], [10]], [[30], [21], [20]]], [[[30], [20], [22]]]]
    fitted = FittedResults(results_of(tmp_path, plan, rows))
    assert [result.arrays["lengths"][0, -1, 0] for result in fitted] == [2, 2, 1]  # for c a tie, of 20.5


def test_patterns_need_other_videos(tmp_path):
    plan = plan_of("ab", budgets=(8.0,), patterns=(2.0,))
    results = results_of(tmp_path, plan, [[[[1.0]] * 3]] * 2)
    PartialResult([VideoRecord("b", skipped="damaged")], {}).save(results.path(1))
    with pytest.raises(ValueError, match="1 video, expected 2 or more: fixed patterns are fitted on other videos"):
        FittedResults(results)


@pytest.mark.parametrize("codec", [False], indirect=True)
def test_reports_show_fixed_patterns(codec, tmp_path, capsys):
    codec.save_pretrained(tmp_path / "model")
    for name, count in (("a", 16), ("b", 8), ("c", 8)):
        write_video(tmp_path / "data" / f"{name}.mp4", count)
    flags = ["evaluate", "reconstruction", tmp_path / "data", "--model", tmp_path / "model", "--device", "cpu"]
    flags += ["--metrics", "psnr", "--budget", 12, 24]
    plain = run(capsys, *flags, "-o", tmp_path / "plain")
    fixed = run(capsys, *flags, "--fixed", "-o", tmp_path / "fixed")
    for one, other in zip(plain["results"], fixed["results"], strict=True):
        assert {name: other[name] for name in one} == one  # nothing else changes
        uniform, pattern, adaptive = (other[name]["psnr"] for name in ("uniform", "fixed", "adaptive"))
        assert other["gain_over_fixed"]["psnr"] == pytest.approx(adaptive - pattern)
        assert other["fixed"]["tokens_per_clip"] == other["budget"]
        assert min(uniform, pattern) > 0
    assert "best fixed pattern" in (tmp_path / "fixed" / "report.html").read_text()
    assert "| 12 | fixed |" in (tmp_path / "fixed" / "report.md").read_text()
    assert read_report(tmp_path / "fixed").results[0].fixed is not None
    compared = compare_reports(tmp_path / "fixed", tmp_path / "fixed", resamples=20)
    assert [list(result.fixed) for result in compared.results] == [["psnr"]] * 2
    assert compared.results[0].fixed["psnr"].a == pytest.approx(fixed["results"][0]["fixed"]["psnr"])
    assert "PSNR of clips, fixed lengths" in {row[1] for row in compared.table()[1]}
    assert not any(
        result.fixed for result in compare_reports(tmp_path / "plain", tmp_path / "fixed", resamples=20).results
    )
    (tmp_path / "data" / "a.mp4").unlink()
    (tmp_path / "data" / "b.mp4").unlink()
    assert "1 video, expected 2 or more" in fails(capsys, *flags, "--fixed")
