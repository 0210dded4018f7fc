"""Metrics of a clip and its reconstruction, and the networks that they need.

Legend: `C` channels, `T` frames, `H`, `W` pixels, `F` features. Values in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok.config.choices import Metric
from adaptok.metrics.distortion import edge_ratio, psnr, sharpness
from adaptok.metrics.fvd import Detector, FeatureCache, open_detector
from adaptok.metrics.lpips import WEIGHTS, Lpips, Network
from adaptok.metrics.pretrained import WeightsError
from adaptok.metrics.similarity import frame_similarity
from adaptok.utils.files import sha256_of


class MetricInfo(NamedTuple):
    """Name of a metric for readers, direction (1 if higher is better, -1 if lower is, 0 if neither), unit, and decimal
    places that are shown."""

    name: str
    direction: Literal[-1, 0, 1]
    unit: str = ""
    decimals: int = 4


METRICS: dict[str, MetricInfo] = {
    "psnr": MetricInfo("PSNR of clips", 1, "dB", 2),
    "psnr_frame": MetricInfo("PSNR of frames", 1, "dB", 2),
    "ssim": MetricInfo("SSIM", 1),
    "ms_ssim": MetricInfo("MS-SSIM", 1),
    "lpips_vgg": MetricInfo("LPIPS (VGG)", -1),
    "lpips_alex": MetricInfo("LPIPS (AlexNet)", -1),
    "edge_ratio": MetricInfo("edge ratio", -1),
    "sharpness": MetricInfo("sharpness", 0),
    "fvd": MetricInfo("FVD", -1, "", 2),
}
"""All metrics, in the order of the report."""
CLIP_METRICS = tuple(name for name in METRICS if name != "fvd")
"""Metrics of a single clip."""
_NETWORKS: dict[Metric, Network] = {"lpips_vgg": "vgg", "lpips_alex": "alex"}

Floats = NDArray[np.float64]


@dataclass
class Measures:
    """Metrics to measure, and the networks that measure them.

    Attributes:
        metrics: metrics of clips in their order, without "fvd".
        lpips: networks of "lpips_vgg" and "lpips_alex".
        detector: detector of FVD. None does not measure FVD.
        cache: features of real clips on disk. None computes them every time.
        hashes: SHA-256 of the weight files of LPIPS, by metric.
        skipped: reason for each default metric that cannot be measured.
        patch_size: side in pixels of the patches on whose grid "edge_ratio" is measured.
    """

    metrics: tuple[Metric, ...] = ("psnr", "psnr_frame", "ssim", "ms_ssim", "edge_ratio", "sharpness")
    lpips: dict[Network, Lpips] = field(default_factory=dict)
    detector: Detector | None = None
    cache: FeatureCache | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    patch_size: int = 16

    @property
    def all_metrics(self) -> tuple[Metric, ...]:
        """Metrics of clips, and "fvd" with a detector."""
        return self.metrics if self.detector is None else (*self.metrics, "fvd")

    @property
    def used_patch_size(self) -> int | None:
        """The patch size, or None if no metric depends on it."""
        return self.patch_size if "edge_ratio" in self.metrics else None

    @property
    def detector_name(self) -> str | None:
        """SHA-256 of the detector's file."""
        return None if self.detector is None else self.detector.sha256

    @torch.no_grad()
    def clip(self, prediction: Tensor, target: Tensor) -> Floats:
        """Measure the metrics `[len(metrics)]` of a clip `[C, T, H, W]`, on the device of the clips.

        "edge_ratio" and "sharpness" may be infinite or NaN, see `adaptok.metrics.distortion`.
        """
        frames, targets = (x.transpose(0, 1).float() for x in (prediction, target))
        values: dict[str, float] = {}
        error = (_exact(frames) - _exact(targets)).square().mean((1, 2, 3))
        values["psnr"] = float(psnr(error.mean()))
        values["psnr_frame"] = float(psnr(error).mean())
        # single frames are twice as fast as a batch on a CPU
        batches = [slice(None)] if targets.is_cuda else [slice(i, i + 1) for i in range(len(targets))]
        if {"ssim", "ms_ssim"} & set(self.metrics):
            similarities = [frame_similarity(frames[batch], targets[batch]) for batch in batches]
            values["ssim"] = float(torch.cat([each.ssim.cpu() for each in similarities]).double().mean())
            values["ms_ssim"] = float(torch.cat([each.ms_ssim for each in similarities]).mean())
        if "edge_ratio" in self.metrics:
            values["edge_ratio"] = edge_ratio(prediction[None], self.patch_size).item()
        if "sharpness" in self.metrics:
            values["sharpness"] = sharpness(prediction[None], target[None]).item()
        for metric, network in _NETWORKS.items():
            if metric in self.metrics:
                distances = [self.lpips[network](frames[batch], targets[batch]).cpu() for batch in batches]
                values[metric] = float(torch.cat(distances).double().mean())
        return np.array([values[metric] for metric in self.metrics])

    def features(self, clip: Tensor, *, real: bool = False) -> NDArray[np.float32]:
        """Compute the features `[F]` of a clip `[3, T, H, W]`. Those of real clips are cached."""
        assert self.detector is not None
        source = self.cache if real and self.cache is not None else self.detector
        row: NDArray[np.float32] = source.features(clip[None])[0]
        return row


def _exact(values: Tensor) -> Tensor:
    """Convert to float64, on the CPU if the device does not support it."""
    return (values.cpu() if values.device.type == "mps" else values).double()


@dataclass(frozen=True)
class Weights:
    """Weight files of the networks.

    Attributes:
        lpips_vgg, lpips_alex: safetensors files or torchvision's files, see `Lpips.from_file`.
        fvd: the detector: weights of I3D as safetensors, or a TorchScript archive.
        fvd_sha256: expected SHA-256 of the detector's file. A TorchScript archive is a program, so another one than the
            published one runs only if its checksum is given.
        download: download missing files.
    """

    lpips_vgg: Path | None = None
    lpips_alex: Path | None = None
    fvd: Path | None = None
    fvd_sha256: str | None = None
    download: bool = False


def open_measures(
    wanted: Sequence[Metric] | None,
    weights: Weights,
    device: torch.device,
    say: Callable[[str], None] = lambda _: None,
    default: Sequence[Metric] = get_args(Metric),
) -> Measures:
    """Load the networks of metrics.

    Args:
        wanted: metrics that must be measured; missing weights are downloaded. None measures those of `default` whose
            weights are available.
        weights: weight files.
        device: device of the networks.
        say: called with one line for each metric that is skipped.
        default: metrics to measure if `wanted` is None.

    Raises:
        ValueError: a wanted metric cannot be measured, or weights are not the published ones.
        FileNotFoundError: a weight file does not exist.
    """
    if unknown := sorted(set(wanted or ()) - set(METRICS)):
        raise ValueError(f"metrics {', '.join(unknown)}, expected some of {', '.join(METRICS)}")
    measures = Measures(metrics=())
    opened: list[Metric] = []
    for metric in get_args(Metric):
        if metric not in (default if wanted is None else wanted):
            continue
        try:
            _open(measures, metric, weights, device, weights.download or wanted is not None)
            opened.append(metric)
        except WeightsError as error:
            if wanted is not None:
                raise
            measures.skipped[metric] = str(error)
            say(f"{metric} is skipped: {error}")
    measures.metrics = tuple(metric for metric in opened if metric != "fvd")
    return measures


def _open(measures: Measures, metric: Metric, weights: Weights, device: torch.device, download: bool) -> None:
    if metric in _NETWORKS:
        network = _NETWORKS[metric]
        path = WEIGHTS[network].find(getattr(weights, metric), download=download)
        measures.hashes[metric] = sha256_of(path)
        measures.lpips[network] = Lpips.from_file(path, network).to(device)
    elif metric == "fvd":
        measures.detector = open_detector(weights.fvd, weights.fvd_sha256, device, download=download)
        measures.cache = FeatureCache(measures.detector)
