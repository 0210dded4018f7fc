"""Structural similarity against torchmetrics."""

from __future__ import annotations

import pytest
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
)

from adaptok.metrics.similarity import frame_similarity, ssim_scales
from tests.helpers.clips import similar_clips


def test_all_five_scales_are_torchmetrics():
    made, true = (x.transpose(0, 1) for x in similar_clips(176, 180, frames=2))
    result = frame_similarity(made, true)
    theirs = multiscale_structural_similarity_index_measure(made, true, data_range=1.0)
    assert ssim_scales(176) == 5
    assert result.ms_ssim.mean().item() == pytest.approx(theirs.item(), abs=1e-5)
