"""LPIPS against the package of its authors."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

from adaptok.metrics.lpips import Lpips
from tests.helpers.clips import similar_clips


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
    package = pytest.importorskip("lpips")  # after its stand-in for torchvision is in place
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
        made, true = (x.transpose(0, 1) for x in similar_clips(height, width))
        with torch.no_grad():
            expected = theirs(made, true, normalize=True).flatten()
        torch.testing.assert_close(ours(made, true), expected, atol=1e-5, rtol=0)


def _has_torchvision():
    try:
        import torchvision  # noqa: F401
    except Exception:  # it may be there and not fit the torch beside it
        return False
    return True
