"""Metrics of clips, and the weights that they need."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from adaptok.evaluation.measures import Measures, Weights, open_measures
from adaptok.metrics.lpips import Lpips
from adaptok.metrics.similarity import SCALE_WEIGHTS, ssim_scales
from tests.helpers.clips import similar_clips

CPU = torch.device("cpu")
SIMILARITIES = ("psnr", "psnr_frame", "ssim", "ms_ssim")
SIZES = ((16, 16), (17, 40), (31, 23), (128, 96))


@pytest.mark.parametrize("size", SIZES)
def test_psnr_and_ssim_are_torchmetrics(size):
    made, true = similar_clips(*size)
    psnr, psnr_frame, ssim, ms_ssim = Measures(SIMILARITIES).clip(made, true)
    frames = list(zip(made.unbind(1), true.unbind(1), strict=True))
    assert psnr == pytest.approx(peak_signal_noise_ratio(made, true, data_range=1.0).item(), abs=1e-5)
    each = [peak_signal_noise_ratio(a, b, data_range=1.0).item() for a, b in frames]
    assert psnr_frame == pytest.approx(sum(each) / len(each), abs=1e-5)
    batch = made.transpose(0, 1), true.transpose(0, 1)
    assert ssim == pytest.approx(structural_similarity_index_measure(*batch, data_range=1.0).item(), abs=1e-5)
    scales = ssim_scales(min(size))
    weights = tuple(w / sum(SCALE_WEIGHTS[:scales]) for w in SCALE_WEIGHTS[:scales])
    if min(size) // max(1, scales - 1) ** 2 > 10:  # torchmetrics asks for more than the window needs
        theirs = multiscale_structural_similarity_index_measure(*batch, data_range=1.0, betas=weights).item()
        assert ms_ssim == pytest.approx(theirs, abs=1e-5)
    assert Measures(SIMILARITIES).clip(true, true).tolist() == pytest.approx([100, 100, 1, 1])


@pytest.mark.parametrize("network", ["vgg", "alex"])
def test_any_size_has_an_lpips(network):
    torch.manual_seed(0)
    lpips = Lpips(network)
    for weight in lpips.weights:
        nn.init.uniform_(weight)
    measures = Measures((f"lpips_{network}",), {network: lpips})
    for size in SIZES:
        made, true = similar_clips(*size)
        assert measures.clip(made, true)[0] > 0
        assert measures.clip(true, true)[0] == 0
    with pytest.raises(ValueError, match="16 pixels or more"):
        measures.clip(*similar_clips(15, 64))


def test_weights_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTOK_CACHE", str(tmp_path / "cache"))
    said = []
    measures = open_measures(None, Weights(), CPU, said.append)
    assert measures.metrics == (*SIMILARITIES, "edge_ratio", "sharpness")
    assert measures.detector is None
    assert set(measures.skipped) == {"lpips_vgg", "lpips_alex", "fvd"}
    assert len(said) == 3
    assert all("\n" not in line for line in said)
    assert "lpips_vgg is skipped: vgg16-397923af.pth (528 MB, https://" in said[0]
    with pytest.raises(ValueError, match="metrics vmaf, expected some of psnr"):
        open_measures(["vmaf"], Weights(), CPU)
