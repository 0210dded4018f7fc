"""Folders of partial results."""

from __future__ import annotations

import json

import pytest

from adaptok.evaluation.measures import Measures
from adaptok.evaluation.pairs import PairsEvaluation
from adaptok.evaluation.partial_results import PartialResults
from tests.helpers.evaluation import FRAMES


def test_evaluations_of_an_older_version_resume(data, tmp_path):
    """Plans without a patch size belong to evaluations without the edge ratio."""
    evaluation = PairsEvaluation(Measures(("psnr", "ssim")), data, data)
    PartialResults(tmp_path / "out", evaluation.plan)
    file = tmp_path / "out" / "plan.json"
    plan = json.loads(file.read_text())
    assert plan.pop("patch_size") is None
    file.write_text(json.dumps(plan))
    assert PartialResults(tmp_path / "out", evaluation.plan).missing() == list(range(len(FRAMES) + 2))
    with pytest.raises(ValueError, match="with other metrics, patch_size; choose another folder"):
        PartialResults(tmp_path / "out", PairsEvaluation(Measures(), data, data).plan)
