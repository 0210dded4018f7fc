"""Evaluations of small models, and reports as version 1 wrote them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adaptok.evaluation.measures import Measures
from adaptok.evaluation.partial_results import PartialResults
from adaptok.evaluation.report.build import build
from adaptok.evaluation.report.clip_table import clip_rows
from adaptok.evaluation.summary import summarize
from adaptok.evaluation.tokenizer import TokenizerEvaluation
from adaptok.metrics.fvd import Detector
from tests.helpers.detector import StandIn

BUDGETS = (12.0, 20.0, 32.0)
FRAMES = {"a/one": 19, "a/two": 8, "b/three": 25}
"""Frames of the videos of the collection `data`."""


def measures():
    """Metrics of clips, and FVD with a stand-in for its detector."""
    return Measures(detector=Detector(StandIn(), "stand-in"))


def evaluate(codec, data, folder, processes=1, **options):
    """Report and table, without what differs from run to run."""
    evaluation = TokenizerEvaluation(codec, measures(), data, budgets=BUDGETS, **options)
    results = PartialResults(folder, evaluation.plan)
    for rank in reversed(range(processes)):
        results.measure(evaluation, rank, processes)
    summary = summarize(results, evaluation.variants, evaluation.tokens)
    document = build(results, summary, {}, {}).document()
    rows = [row for result in results for row in clip_rows(result, summary)]
    return {name: document[name] for name in ("data", "results", "metrics", "examples")}, rows


def assert_same(one, other):
    """Assert that numbers agree within 1e-6 and everything else is equal."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-6)
    else:
        assert one == other


def write_report(folder, psnr, videos, budgets=(8.0,), sha="0", **others):
    """Write a report of version 1 of the format, of clips with the given PSNR and other metrics at every budget."""
    folder.mkdir()
    clips = {"video": videos, "clip": range(len(videos)), "psnr": psnr, **others}
    rows = {name: [*values] * len(budgets) for name, values in clips.items()}
    rows["budget"] = [budget for budget in budgets for _ in videos]
    pq.write_table(pa.table({name: pa.array(values) for name, values in rows.items()}), folder / "metrics.parquet")
    results = [
        {
            "budget": budget,
            "way": "adaptive",
            "adaptive": {"psnr": float(np.mean(psnr)), "tokens_per_clip": budget - 0.5},
        }
        for budget in budgets
    ]
    document = {
        "format": "adaptok-report",
        "version": 1,
        "kind": "tokenizer",
        "protocol": {"name": "all", "frames": 8, "size": 16, "scope": "video"},
        "model": {"name": folder.name},
        "data": {"originals_sha256": sha, "videos": len(set(videos)), "clips": len(videos)},
        "metrics": ["psnr", *others],
        "results": results,
    }
    (folder / "report.json").write_text(json.dumps(document))
    return folder
