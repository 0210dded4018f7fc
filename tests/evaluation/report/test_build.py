"""Files of a report: table and pages."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from adaptok.evaluation.examples import load_examples
from adaptok.evaluation.partial_results import PartialResult, PartialResults
from adaptok.evaluation.report.build import build, write
from adaptok.evaluation.results import read_report
from adaptok.evaluation.summary import summarize
from adaptok.evaluation.tokenizer import TokenizerEvaluation
from tests.helpers.evaluation import BUDGETS, measures


def test_the_table_and_the_pages(codec, data, tmp_path):
    evaluation = TokenizerEvaluation(codec, measures(), data, budgets=BUDGETS)
    folder = tmp_path / "report"
    results = PartialResults(folder, evaluation.plan)
    results.measure(evaluation)
    summary = summarize(results, evaluation.variants, evaluation.tokens)
    report = build(results, summary, {"fvd": "why"}, {"processor": "p", "device": "cpu", "threads": 1})
    write(folder, report, results, summary, load_examples(evaluation, results, summary.examples))
    assert read_report(folder) == report
    table = pq.read_table(folder / "metrics.parquet").to_pylist()
    for result in report.results:
        rows = [row for row in table if row["budget"] == result.budget]
        for metric in ("psnr", "psnr_frame", "ssim", "ms_ssim", "edge_ratio", "sharpness"):
            assert np.mean([row[metric] for row in rows]) == pytest.approx(result.adaptive.value(metric))
            assert np.mean([row[f"uniform_{metric}"] for row in rows]) == pytest.approx(result.uniform.value(metric))
        assert sum(row["tokens"] for row in rows) / len(rows) == pytest.approx(result.adaptive.tokens_per_clip)
    html = (folder / "report.html").read_text()
    assert html.count("<svg") == 7 + len(BUDGETS) + 1
    assert "data:image/jpeg;base64," in html
    for address in ("http:", "https:", 'src="/', "@import"):
        assert address not in html
    assert set(re.findall(r"url\((.)", html)) == {"#"}  # clip paths of the same page
    assert not re.findall("#0a0[bc]0", html)  # placeholders of colours
    assert report.examples.worst[0].psnr <= report.examples.best[0].psnr
    markdown = (folder / "report.md").read_text()
    patch_size = f"{codec.config.tokenizer.patch_size} pixels"
    for text in (evaluation.plan.model_hash, "broken.mp4", "fvd skipped", report.data.sha256, patch_size):
        assert text in html
        assert text in markdown


def test_charts_of_clips_without_a_number(codec, data, tmp_path):
    """Infinite and NaN metrics do not break the pages."""
    evaluation = TokenizerEvaluation(codec, measures(), data, budgets=BUDGETS)
    results = PartialResults(tmp_path, evaluation.plan)
    results.measure(evaluation)
    for unit in range(evaluation.plan.units):
        result = PartialResult.load(results.path(unit))
        if result.clips:
            result.arrays["metrics"][0, 1, -2:] = np.inf, np.nan  # of one variant
            result.arrays["metrics"][:, :, 0] = np.nan
            result.save(results.path(unit))
    summary = summarize(results, evaluation.variants, evaluation.tokens)
    report = build(results, summary, {}, {})
    document = report.document()
    assert document["undefined"] == {"psnr": 6, "edge_ratio": 3, "sharpness": 3}
    assert document["examples"] == {"best": [], "worst": []}
    write(tmp_path, report, results, summary, load_examples(evaluation, results, summary.examples))
    json.dumps(document, allow_nan=False)
    assert document["results"][0]["adaptive"]["psnr"] is None
    for way in ("adaptive", "uniform"):  # over the same clips
        kept = [
            PartialResult.load(results.path(unit)).arrays.get("metrics", np.empty((0, 6, 6)))[1:] for unit in range(5)
        ]
        mean = np.concatenate(kept)[:, ("adaptive", "uniform").index(way), -1].mean()
        assert document["results"][0][way]["sharpness"] == pytest.approx(mean)
