"""What is measured of a clip and its reconstruction, and the networks that this needs.

Legend: `C` channels, `T` frames, `H`, `W` pixels, `F` features. Values in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptok.config.choices import Metric
from adaptok.metrics.distortion import edge_ratio, psnr, sharpness
from adaptok.metrics.lpips import WEIGHTS, Lpips, Network
from adaptok.metrics.pretrained import Published, WeightsError
from adaptok.metrics.similarity import frame_similarity
from adaptok.utils.files import sha256_of

METRICS: tuple[Metric, ...] = get_args(Metric)
"""All metrics, in the order of the report."""
CLIP_METRICS = tuple(metric for metric in METRICS if metric != "fvd")
"""Metrics of a single clip."""
UNITS: dict[str, str] = {"psnr": "dB", "psnr_frame": "dB"}
DIRECTIONS: dict[str, Literal[-1, 0, 1]] = {
    "psnr": 1,
    "psnr_frame": 1,
    "ssim": 1,
    "ms_ssim": 1,
    "lpips_vgg": -1,
    "lpips_alex": -1,
    "edge_ratio": -1,
    "sharpness": 0,
    "fvd": -1,
}
"""1 if higher is better, -1 if lower is better, 0 if neither is."""
NAMES: dict[str, str] = {
    "psnr": "PSNR of clips",
    "psnr_frame": "PSNR of frames",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "lpips_vgg": "LPIPS (VGG)",
    "lpips_alex": "LPIPS (AlexNet)",
    "edge_ratio": "edge ratio",
    "sharpness": "sharpness",
    "fvd": "FVD",
}
_NETWORKS: dict[Metric, Network] = {"lpips_vgg": "vgg", "lpips_alex": "alex"}

DETECTOR = Published(
    "i3d_torchscript.pt",
    "https://huggingface.co/flateon/FVD-I3D-torchscript/resolve/main/i3d_torchscript.pt",
    "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
    51,
)
"""I3D trained on Kinetics-400, as the FVD of StyleGAN-V and the official protocol use it."""

Floats = NDArray[np.float64]


@dataclass
class Measures:
    """Measures clips.

    Attributes:
        metrics: those of a clip, in this order; without "fvd".
        lpips: the networks of "lpips_vgg" and "lpips_alex".
        detector: features of clips for the FVD: called as `detector(clips, resize=True, return_features=True)` with
            `[B, 3, T, H, W]` in [-1, 1], it returns `[B, F]`; None leaves the FVD out.
        detector_name: what says which detector it is: the SHA-256 of its file.
        left_out: metrics that were wanted and cannot be measured, with the reason.
        patch_size: pixels of a side of the patches whose grid "edge_ratio" is measured on.
    """

    metrics: tuple[Metric, ...] = ("psnr", "psnr_frame", "ssim", "ms_ssim", "edge_ratio", "sharpness")
    lpips: dict[Network, Lpips] = field(default_factory=dict)
    detector: Callable[..., Tensor] | None = None
    detector_name: str | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    patch_size: int = 16

    @property
    def all_metrics(self) -> tuple[Metric, ...]:
        """The metrics of a clip, and "fvd" if there is a detector."""
        return self.metrics if self.detector is None else (*self.metrics, "fvd")

    @property
    def used_patch_size(self) -> int | None:
        """The patch size, or None if no metric depends on it."""
        return self.patch_size if "edge_ratio" in self.metrics else None

    @torch.no_grad()
    def clip(self, prediction: Tensor, target: Tensor) -> Floats:
        """Metrics `[len(metrics)]` of a clip `[C, T, H, W]`, on whatever device the clips are.

        "edge_ratio" and "sharpness" may be infinite or NaN, see `adaptok.metrics.distortion`.
        """
        made, true = (x.transpose(0, 1).float() for x in (prediction, target))
        values: dict[str, float] = {}
        error = (_exact(made) - _exact(true)).square().mean((1, 2, 3))
        values["psnr"] = float(psnr(error.mean()))
        values["psnr_frame"] = float(psnr(error).mean())
        # frame by frame is twice as fast on a CPU
        pieces = [slice(None)] if true.is_cuda else [slice(i, i + 1) for i in range(len(true))]
        if {"ssim", "ms_ssim"} & set(self.metrics):
            found = [frame_similarity(made[piece], true[piece]) for piece in pieces]
            values["ssim"] = float(torch.cat([each.ssim.cpu() for each in found]).double().mean())
            values["ms_ssim"] = float(torch.cat([each.ms_ssim for each in found]).mean())
        if "edge_ratio" in self.metrics:
            values["edge_ratio"] = edge_ratio(prediction[None], self.patch_size).item()
        if "sharpness" in self.metrics:
            values["sharpness"] = sharpness(prediction[None], target[None]).item()
        for metric, network in _NETWORKS.items():
            if metric in self.metrics:
                distances = [self.lpips[network](made[piece], true[piece]).cpu() for piece in pieces]
                values[metric] = float(torch.cat(distances).double().mean())
        return np.array([values[metric] for metric in self.metrics])

    @torch.no_grad()
    def features(self, clip: Tensor) -> NDArray[np.float32]:
        """Features `[F]` of a clip `[3, T, H, W]`."""
        assert self.detector is not None
        found = self.detector(clip[None].float() * 2 - 1, resize=True, return_features=True)
        if found.ndim != 2 or len(found) != 1:
            raise ValueError(f"the detector returned the shape {tuple(found.shape)} for one clip, expected [1, F]")
        features: NDArray[np.float32] = found[0].float().cpu().numpy()
        return features


def _exact(values: Tensor) -> Tensor:
    """In float64, where it can be had."""
    return (values.cpu() if values.device.type == "mps" else values).double()


@dataclass(frozen=True)
class Weights:
    """Where the networks' weights are.

    Attributes:
        lpips_vgg, lpips_alex: safetensors files or torchvision's files, see `Lpips.from_file`.
        fvd: the detector, a TorchScript archive.
        fvd_sha256: its SHA-256, where it is not the published one: an archive is a program, so it is never run
            unless its bytes are vouched for.
        download: fetch what is not there.
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
    default: Sequence[Metric] = METRICS,
) -> Measures:
    """Measures of the metrics that are asked for, or of those of `default` whose weights can be had.

    Args:
        wanted: metrics that must be measured; their weights are fetched where need be. None measures what is possible.
        say: called with one line for each metric that is left out.
        default: what to measure where nothing is asked for.

    Raises:
        ValueError: a metric that is asked for cannot be measured, or weights are not the published ones.
        FileNotFoundError: a file of weights does not exist.
    """
    if unknown := sorted(set(wanted or ()) - set(METRICS)):
        raise ValueError(f"metrics {', '.join(unknown)}, expected some of {', '.join(METRICS)}")
    measures = Measures(metrics=())
    found: list[Metric] = []
    for metric in METRICS:
        if metric not in (default if wanted is None else wanted):
            continue
        try:
            _open(measures, metric, weights, device, weights.download or wanted is not None)
            found.append(metric)
        except WeightsError as error:
            if wanted is not None:
                raise
            measures.left_out[metric] = str(error)
            say(f"{metric} is left out: {error}")
    measures.metrics = tuple(metric for metric in found if metric != "fvd")
    return measures


def _open(measures: Measures, metric: Metric, weights: Weights, device: torch.device, download: bool) -> None:
    if metric in _NETWORKS:
        network = _NETWORKS[metric]
        path = WEIGHTS[network].find(getattr(weights, metric), download=download)
        measures.lpips[network] = Lpips.from_file(path, network).to(device)
    elif metric == "fvd":
        path = DETECTOR.find(weights.fvd, download=download)
        measures.detector, measures.detector_name = load_detector(path, weights.fvd_sha256, device)


def load_detector(path: Path, sha256: str | None, device: torch.device) -> tuple[nn.Module, str]:
    """The detector of an archive, and the SHA-256 of its file.

    Args:
        sha256: of the file; the published one's if None.

    Raises:
        ValueError: the file has another.
    """
    expected = (sha256 or DETECTOR.sha256).lower()
    found = sha256_of(path)
    if found != expected:
        raise ValueError(
            f"{path}: SHA-256 {found}, expected {expected}; a TorchScript archive is a program and is only run if it is"
            f" {DETECTOR.name} as published, or if its own checksum is given with --fvd-sha256"
        )
    detector: Any = torch.jit.load(str(path), map_location=device)
    return detector.eval(), found
