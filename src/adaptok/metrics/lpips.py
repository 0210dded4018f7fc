"""LPIPS, the perceptual distance of Zhang et al. (arXiv 1801.03924), on features of VGG16 or AlexNet.

Legend: `N` frames, `C` channels of a feature map, `h`, `w` its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from adaptok.metrics.pretrained import Published
from adaptok.utils.extras import require
from adaptok.utils.files import sha256_of
from adaptok.utils.messages import one_line

Network = Literal["vgg", "alex"]

PUBLISHED: dict[Network, str] = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}
"""Weight files, under their names in torchvision."""
DOWNLOAD = "https://download.pytorch.org/models/"
_SHA256 = {
    "vgg16-397923af.pth": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "alexnet-owt-7be5be79.pth": "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    "vgg.pth": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "alex.pth": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
}
_CHANNEL_WEIGHTS = tuple(f"lin{layer}.model.1.weight" for layer in range(5))
"""Names of the channel weights of the compared layers."""
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPS = 1e-10
MIN_SIZE = 16
"""Smallest side of a frame, in pixels."""
_MIN_INPUT = {"vgg": 16, "alex": 31}
"""Smallest side, in pixels, that leaves every layer of a network a feature map. Smaller frames are enlarged to it."""
WEIGHTS: dict[Network, Published] = {
    network: Published(name, DOWNLOAD + name, _SHA256[name], megabytes)
    for (network, name), megabytes in zip(PUBLISHED.items(), (528, 233), strict=True)
}
"""Published weights of the convolutions."""


class Lpips(nn.Module):
    """Perceptual distance of frames: 0 for equal frames, about 0.7 for unrelated ones.

    The feature maps of both frames are normalized to unit length at every position. Their squared differences are
    weighted per channel, averaged over positions and summed over five layers. The weights are frozen; gradients flow
    to the frames.

    Args:
        network: "vgg" (VGG16, as in the official objective and protocol) or "alex" (AlexNet).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: Network = "vgg") -> None:
        super().__init__()
        self.network = network
        self.features, self.taps = _vgg16() if network == "vgg" else _alexnet()
        convolutions = (self.features[tap - 1] for tap in self.taps)  # each tap is the activation that follows one
        self.weights = nn.ParameterList(torch.zeros(m.out_channels) for m in convolutions if isinstance(m, nn.Conv2d))
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    @classmethod
    def from_file(cls, path: str | Path, network: Network = "vgg") -> Lpips:
        """Load the weights of a network.

        Args:
            path: a safetensors file with the convolutions under torchvision's names (`features.0.weight`, …) and,
                optionally, all five channel weights under the names of the LPIPS project (`lin0.model.1.weight`
                `[1, C, 1, 1]`, …); or torchvision's own file (`PUBLISHED`). If the file has no channel weights, they
                are read from the torchmetrics package. Other tensors are ignored.
            network: "vgg" or "alex".

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is unreadable, is a pickle other than the published one, or lacks a tensor of the right
                shape.
            ImportError: channel weights are needed and torchmetrics is not installed.
        """
        path = Path(path)
        state = _read(path, network)
        if not any(name in state for name in _CHANNEL_WEIGHTS):
            state = {**state, **_channel_weights(network)}
        lpips = cls(network)
        targets = {f"features.{name}": tensor for name, tensor in lpips.features.state_dict().items()}
        targets |= {
            name: weight.view(1, -1, 1, 1) for name, weight in zip(_CHANNEL_WEIGHTS, lpips.weights, strict=True)
        }
        for name, target in targets.items():
            tensor = state.get(name)
            if tensor is None or tensor.shape != target.shape:
                problem = "is missing" if tensor is None else f"has the shape {tuple(tensor.shape)}"
                advice = f"give {PUBLISHED[network]} of {DOWNLOAD}"
                if name in _CHANNEL_WEIGHTS:
                    advice = f"give a file with all five channel weights of LPIPS with {network}, or with none"
                raise ValueError(f"{path}: {name} {problem}, expected {tuple(target.shape)}; {advice}")
            target.copy_(tensor)
        return lpips

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances `[N]` of frames `[N, 3, H, W]` in [0, 1].

        AlexNet reduces frames with a side under 31 pixels to nothing, so they are enlarged (bilinear) first.

        Raises:
            ValueError: the shapes differ from these, or the frames have a side under 16 pixels.
        """
        if first.shape != second.shape or first.ndim != 4 or first.shape[1] != 3:
            raise ValueError(f"frames of {tuple(first.shape)} and {tuple(second.shape)}, expected equal [N, 3, H, W]")
        if min(first.shape[2:]) < MIN_SIZE:
            raise ValueError(f"frames of {tuple(first.shape[2:])}, expected {MIN_SIZE} pixels or more a side")
        first, second = self._enlarge(first), self._enlarge(second)
        with torch.no_grad() if not second.requires_grad else torch.enable_grad():
            maps = self._maps(second)
        return self._distances(self._maps(first), maps)

    def compare(self, candidates: Tensor, reference: Tensor, batch_size: int) -> Tensor:
        """Compute the distances `[N, L]` of L candidates for each of N frames, whose features are computed only once.

        Args:
            candidates: `[N, L, 3, H, W]` in [0, 1].
            reference: `[N, 3, H, W]` in [0, 1].
            batch_size: number of candidates that the network processes at once.
        """
        count = candidates.shape[1]
        rows = max(1, batch_size // count)
        distances = []
        for some, frames in zip(candidates.split(rows), reference.split(rows), strict=True):
            maps = [features.unflatten(0, (-1, count)) for features in self._maps(self._enlarge(some.flatten(0, 1)))]
            expected = [features[:, None] for features in self._maps(self._enlarge(frames))]
            distances.append(self._distances(maps, expected))
        return torch.cat(distances)

    def _enlarge(self, frames: Tensor) -> Tensor:
        """Enlarge frames that are too small for the network."""
        size = [max(_MIN_INPUT[self.network], side) for side in frames.shape[2:]]
        return frames if size == list(frames.shape[2:]) else F.interpolate(frames, size, mode="bilinear")

    def _distances(self, first: list[Tensor], second: list[Tensor]) -> Tensor:
        """Compute the distances `[...]` of feature maps `[..., C, h, w]`."""
        distances = [
            ((a - b).square() * weight[:, None, None]).sum(-3).mean((-2, -1))
            for a, b, weight in zip(first, second, self.weights, strict=True)
        ]
        return torch.stack(distances).sum(0).float()

    def _maps(self, frames: Tensor) -> list[Tensor]:
        """Compute feature maps `[N, C, h, w]` of unit length at every position."""
        x = ((frames * 2 - 1) - self.shift) / self.scale
        maps = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + _EPS))
        return maps


def clip_lpips(lpips: Lpips, prediction: Tensor, target: Tensor) -> Tensor:
    """Distances `[B, T]` of the frames of clips `[B, 3, T, H, W]` in [0, 1], computed one frame index at a time."""
    pairs = zip(prediction.unbind(2), target.unbind(2), strict=True)
    return torch.stack([lpips(frames, targets) for frames, targets in pairs], 1)


def _vgg16() -> tuple[nn.Sequential, tuple[int, ...]]:
    """Build the convolutions of VGG16; compared are the last activations before each pooling."""
    layers: list[nn.Module] = []
    taps, channels = [], 3
    for stage, (width, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        if stage:
            layers.append(nn.MaxPool2d(2))
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        taps.append(len(layers) - 1)
    return nn.Sequential(*layers), tuple(taps)


def _alexnet() -> tuple[nn.Sequential, tuple[int, ...]]:
    """Build the convolutions of AlexNet; compared are the activations after each."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers), (1, 4, 7, 9, 11)


def _read(path: Path, network: Network) -> Mapping[str, Tensor]:
    """Read a weight file. Pickles are opened only if they are the published file, bit for bit."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; download {PUBLISHED[network]} from {DOWNLOAD}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a readable safetensors file ({one_line(error)}); export it again") from None
    return _read_published(path, PUBLISHED[network], _SHA256[PUBLISHED[network]])


def _channel_weights(network: Network) -> Mapping[str, Tensor]:
    """Read the channel weights that the LPIPS project published (version 0.1) from the torchmetrics package."""
    require("torchmetrics", extra="eval", purpose="LPIPS without channel weights in its file")
    with as_file(files("torchmetrics") / "functional" / "image" / "lpips_models" / f"{network}.pth") as path:
        return _read_published(path, f"{network}.pth", _SHA256[f"{network}.pth"])


def _read_published(path: Path, name: str, expected: str) -> Mapping[str, Tensor]:
    actual = sha256_of(path)
    if actual != expected:
        raise ValueError(
            f"{path}: not the published {name} (SHA-256 {actual[:12]}…, expected {expected[:12]}…), and other pickles"
            " are not opened; give that file, or its tensors as safetensors"
        )
    state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state
