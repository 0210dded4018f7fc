"""Metrics of clips against other implementations, and weights that are not the published ones."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from adaptok.evaluation.measures import DETECTOR, Measures, Weights, load_detector, open_measures
from adaptok.metrics.lpips import Lpips
from adaptok.metrics.pretrained import Published, WeightsError
from adaptok.metrics.similarity import SCALE_WEIGHTS, frame_similarity, ssim_scales
from adaptok.utils.files import sha256_of
from tests.helpers.detector import Detector

CPU = torch.device("cpu")
SIMILARITIES = ("psnr", "psnr_frame", "ssim", "ms_ssim")
SIZES = ((16, 16), (17, 40), (31, 23), (128, 96))


def pair(height, width, frames=3, seed=0):
    """A clip `[3, T, H, W]`, and one like it."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.rand(3, frames, height, width, generator=generator)
    return (true + 0.3 * torch.rand(true.shape, generator=generator)).clamp(0, 1), true


@pytest.mark.parametrize("size", SIZES)
def test_psnr_and_ssim_are_torchmetrics(size):
    made, true = pair(*size)
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


def test_all_five_scales_are_torchmetrics():
    made, true = (x.transpose(0, 1) for x in pair(176, 180, frames=2))
    found = frame_similarity(made, true)
    theirs = multiscale_structural_similarity_index_measure(made, true, data_range=1.0)
    assert found.scales == 5
    assert found.ms_ssim.mean().item() == pytest.approx(theirs.item(), abs=1e-5)


@pytest.mark.parametrize("network", ["vgg", "alex"])
def test_any_size_has_an_lpips(network):
    torch.manual_seed(0)
    lpips = Lpips(network)
    for weight in lpips.weights:
        nn.init.uniform_(weight)
    measures = Measures((f"lpips_{network}",), {network: lpips})
    for size in SIZES:
        made, true = pair(*size)
        assert measures.clip(made, true)[0] > 0
        assert measures.clip(true, true)[0] == 0
    with pytest.raises(ValueError, match="16 pixels or more"):
        measures.clip(*pair(15, 64))


def layers(*parts):
    """Convolutions (width, kernel, stride, padding) with their activation, and the poolings between, as published."""
    made, channels = [], 3
    for part in parts:
        if len(part) == 2:
            made.append(nn.MaxPool2d(*part))
        else:
            made += [nn.Conv2d(channels, part[0], *part[1:]), nn.ReLU(inplace=True)]
            channels = part[0]
    return nn.Sequential(*made)


def torchvision_models():
    """The convolutions of torchvision's two networks, with random weights, where torchvision is not installed."""
    widths = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]
    vgg = [(2, 2) if not w else (w, 3, 1, 1) for w in widths]
    alex = [(64, 11, 4, 2), (3, 2), (192, 5, 1, 2), (3, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1), (3, 2)]
    models = types.ModuleType("torchvision.models")
    models.vgg16 = lambda **_: types.SimpleNamespace(features=layers(*vgg))
    models.alexnet = lambda **_: types.SimpleNamespace(features=layers(*alex))
    return models


@pytest.mark.parametrize("network", ["vgg", "alex"])
def test_lpips_is_the_package(network, monkeypatch):
    """The package `lpips` with the same random weights; of torchvision it needs the layout alone, which stands in."""
    if not _has_torchvision():
        stand_in = types.ModuleType("torchvision")
        stand_in.models = torchvision_models()
        monkeypatch.setitem(sys.modules, "torchvision", stand_in)
        monkeypatch.setitem(sys.modules, "torchvision.models", stand_in.models)
    package = pytest.importorskip("lpips", reason="not run: the package lpips is not installed")
    torch.manual_seed(0)
    theirs = package.LPIPS(net=network, pretrained=False, pnet_rand=True, verbose=False).eval()
    lins = [theirs.lin0, theirs.lin1, theirs.lin2, theirs.lin3, theirs.lin4]
    for lin in lins:
        nn.init.uniform_(lin.model[-1].weight)
    ours = Lpips(network)
    convolutions = [m for m in theirs.net.modules() if isinstance(m, nn.Conv2d)]
    own = [m for m in ours.features if isinstance(m, nn.Conv2d)]
    for a, b in zip(own, convolutions, strict=True):
        a.load_state_dict(b.state_dict())
    for weight, lin in zip(ours.weights, lins, strict=True):
        weight.copy_(lin.model[-1].weight.flatten())
    for height, width in ((16, 16), (33, 50), (64, 64)):
        if network == "alex" and height < 31:
            continue  # the package fails on them
        made, true = (x.transpose(0, 1) for x in pair(height, width))
        with torch.no_grad():
            expected = theirs(made, true, normalize=True).flatten()
        torch.testing.assert_close(ours(made, true), expected, atol=1e-5, rtol=0)


def _has_torchvision():
    try:
        import torchvision  # noqa: F401
    except Exception:  # it may be there and not fit the torch beside it
        return False
    return True


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


def test_fetching(tmp_path, monkeypatch):
    """A file is fetched once, checked, and kept; without a network, one line says what to do."""
    monkeypatch.setenv("ADAPTOK_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "there.bin"
    source.write_bytes(b"weights")
    good = Published("a.bin", source.as_uri(), sha256_of(source), 1)
    with pytest.raises(WeightsError, match="give its path, or --download"):
        good.find()
    assert good.find(download=True).read_bytes() == b"weights"
    source.unlink()
    assert good.find().read_bytes() == b"weights"
    source.write_bytes(b"others")
    with pytest.raises(WeightsError, match=r"not the published b\.bin"):
        Published("b.bin", source.as_uri(), good.sha256, 1).find(download=True)
    nowhere = Published("c.bin", (tmp_path / "nowhere").as_uri(), good.sha256, 1)
    with pytest.raises(WeightsError, match=r"c\.bin cannot be downloaded from .*; without a network, give its path"):
        nowhere.find(download=True)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a.bin"]


def test_a_detector_is_only_run_if_it_is_vouched_for(tmp_path):
    path = tmp_path / "other.pt"
    torch.jit.script(Detector()).save(str(path))
    with pytest.raises(ValueError, match=rf"SHA-256 {sha256_of(path)}, expected {DETECTOR.sha256}; .* --fvd-sha256"):
        load_detector(path, None, CPU)
    detector, name = load_detector(path, sha256_of(path).upper(), CPU)
    assert name == sha256_of(path)
    clip = torch.rand(3, 4, 16, 16)
    features = Measures(detector=detector).features(clip)
    quarters = clip[0].view(4, 2, 8, 2, 8).mean((0, 2, 4)).flatten()
    torch.testing.assert_close(torch.from_numpy(features)[:4], quarters * 2 - 1)
