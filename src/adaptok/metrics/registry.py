"""All published weight files of metrics, by the names that `adaptok weights` gives them."""

from __future__ import annotations

from adaptok.metrics.fvd import I3D_WEIGHTS, TORCHSCRIPT
from adaptok.metrics.lpips import WEIGHTS
from adaptok.metrics.pretrained import Published

METRIC_WEIGHTS: dict[str, Published] = {
    "lpips-vgg": WEIGHTS["vgg"],
    "lpips-alex": WEIGHTS["alex"],
    "i3d": I3D_WEIGHTS,
    "i3d-torchscript": TORCHSCRIPT,
}
