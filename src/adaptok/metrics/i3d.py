"""I3D (Carreira and Zisserman, arXiv 1705.07750), the network whose features FVD compares.

It is the RGB network of TF-Hub (`deepmind/i3d-kinetics-400`), trained on Kinetics-400. The features are its 400 logits,
averaged over time, before the softmax.

Legend: `B` clips, `C` channels, `T` frames, `H`, `W` pixels, `F` = 400 features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from adaptok.utils.messages import one_line

FEATURES = 400
"""Number of classes of Kinetics-400."""
RESOLUTION = 224
"""Side of the square that the network was trained on, in pixels."""
_EPS = 1e-3
"""Epsilon of the batch norms."""
_MIN_FRAMES = 9
"""Smallest number of frames that leaves the final pooling over two time steps an input."""
_MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
"""Output channels of the convolutions of each inception module."""
_POOLS = {"Mixed_4b": ((3, 3, 3), (2, 2, 2)), "Mixed_5b": ((2, 2, 2), (2, 2, 2))}
"""Kernel and stride of the pooling before a module."""
Size3 = tuple[int, int, int]


def pad_same(x: Tensor, kernel: Size3, stride: Size3, value: float = 0.0) -> Tensor:
    """Pad `[B, C, T, H, W]` as TensorFlow's "SAME" does, which puts an odd element at the end.

    The output of a convolution without padding then has ceil(size / stride) elements along each axis.
    """
    padding: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        padding += [total // 2, total - total // 2]
    return F.pad(x, padding, value=value) if any(padding) else x


class ConvUnit(nn.Module):
    """Convolution with "SAME" padding and ReLU. The batch norm that follows the published one is folded into it."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int = 1, activate: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, width, kernel, stride)
        self.kernel, self.stride, self.activate = (kernel, kernel, kernel), (stride, stride, stride), activate

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(pad_same(x, self.kernel, self.stride))
        return x.relu_() if self.activate else x


class Inception(nn.Module):
    """Inception module: four branches over the same input, concatenated."""

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        a, b0, b1, c0, c1, d = widths
        self.branch_0 = nn.Sequential(ConvUnit(channels, a, 1))
        self.branch_1 = nn.Sequential(ConvUnit(channels, b0, 1), ConvUnit(b0, b1, 3))
        self.branch_2 = nn.Sequential(ConvUnit(channels, c0, 1), ConvUnit(c0, c1, 3))
        self.branch_3 = nn.Sequential(ConvUnit(channels, d, 1))

    def forward(self, x: Tensor) -> Tensor:
        pooled = max_pool_same(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.branch_0(x), self.branch_1(x), self.branch_2(x), self.branch_3(pooled)], 1)


def max_pool_same(x: Tensor, kernel: Size3, stride: Size3) -> Tensor:
    """Maximum over windows with "SAME" padding. The inputs are outputs of a ReLU, so padding with 0 changes nothing."""
    return F.max_pool3d(pad_same(x, kernel, stride), kernel, stride)


class I3D(nn.Module):
    """I3D with frozen weights. `I3D.from_file` loads published ones; otherwise they are random."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1a = ConvUnit(3, 64, 7, stride=2)
        self.conv_2b = ConvUnit(64, 64, 1)
        self.conv_2c = ConvUnit(64, 192, 3)
        outputs = [a + b + c + d for a, _, b, _, c, d in _MIXED.values()]
        inputs = [192, *outputs]
        self.mixed = nn.ModuleDict(
            {
                name: Inception(channels, widths)
                for (name, widths), channels in zip(_MIXED.items(), inputs, strict=False)
            }
        )
        self.logits = ConvUnit(outputs[-1], FEATURES, 1, activate=False)
        self.eval().requires_grad_(False)

    @classmethod
    def from_file(cls, path: Path) -> I3D:
        """Load weights from a safetensors file with the names of TF-Hub, as the evaluation page of the docs describes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a safetensors file, or a tensor is missing or has another shape.
        """
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file, expected the weights of I3D as safetensors")
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a readable safetensors file ({one_line(error)}); convert it again") from None
        network = cls()
        for name, unit in network.units().items():
            weight, bias = unit.conv.weight, unit.conv.bias
            assert bias is not None
            weight.copy_(_take(state, f"params.{name}.Conv_0.kernel", weight, path))
            if not unit.activate:  # the logits have a bias, and no batch norm
                bias.copy_(_take(state, f"params.{name}.Conv_0.bias", bias, path))
                continue
            shift, mean, variance = (
                _take(state, f"{part}.{name}.BatchNorm_0.{kind}", bias, path).double()
                for part, kind in (("params", "bias"), ("batch_stats", "mean"), ("batch_stats", "var"))
            )
            scale = (variance + _EPS).rsqrt()
            weight.copy_(weight.double() * scale[:, None, None, None, None])
            bias.copy_(shift - mean * scale)
        return network

    def units(self) -> dict[str, ConvUnit]:
        """Convolutions by their names in TF-Hub."""
        units = {"Conv3d_1a_7x7": self.conv_1a, "Conv3d_2b_1x1": self.conv_2b, "Conv3d_2c_3x3": self.conv_2c}
        suffixes = {"branch_0": ("0a_1x1",), "branch_3": ("0b_1x1",)}
        for module_name, module in self.mixed.items():
            for branch_name, branch in module.named_children():
                names = suffixes.get(branch_name, ("0a_1x1", "0b_3x3"))
                for suffix, unit in zip(names, branch.children(), strict=True):
                    assert isinstance(unit, ConvUnit)
                    units[f"{module_name}.{branch_name.capitalize()}/Conv3d_{suffix}"] = unit
        return units | {"Logits/Conv3d_0c_1x1": self.logits}

    def forward(self, clips: Tensor, resize: bool = True, return_features: bool = True) -> Tensor:
        """Compute the features of clips, in float32.

        On a CPU, clips are computed one at a time and by one thread, so that the features of a clip are the same to the
        bit in every batch and whatever the number of threads; several processes share the work instead. On a GPU,
        TensorFloat-32 is not used.

        Args:
            clips: `[B, 3, T, H, W]` in [-1, 1], of at least 9 frames.
            resize: resize frames to 224 x 224 pixels (bilinear, not antialiased), as the published detector does.
            return_features: return features; otherwise the probabilities of the classes.

        Returns:
            `[B, F]`.

        Raises:
            ValueError: the shape differs.
        """
        if clips.ndim != 5 or clips.shape[1] != 3 or clips.shape[2] < _MIN_FRAMES:
            raise ValueError(
                f"clips of {tuple(clips.shape)}, expected [B, 3, T, H, W] with {_MIN_FRAMES} frames or more"
            )
        size = max(1, len(clips)) if clips.is_cuda else 1
        with torch.autocast(clips.device.type, enabled=False), _reproducible(clips.device):
            features = torch.cat([self._features(batch.float(), resize) for batch in clips.split(size)])
        return features if return_features else features.softmax(-1)

    def _features(self, x: Tensor, resize: bool) -> Tensor:
        if resize and x.shape[3:] != (RESOLUTION, RESOLUTION):
            frames = x.transpose(1, 2).flatten(0, 1)
            frames = F.interpolate(frames, (RESOLUTION, RESOLUTION), mode="bilinear", align_corners=False)
            x = frames.unflatten(0, (len(x), -1)).transpose(1, 2)
        x = max_pool_same(self.conv_1a(x), (1, 3, 3), (1, 2, 2))
        x = max_pool_same(self.conv_2c(self.conv_2b(x)), (1, 3, 3), (1, 2, 2))
        for name, module in self.mixed.items():
            x = module(max_pool_same(x, *_POOLS[name]) if name in _POOLS else x)
        x = F.avg_pool3d(x, (2, *x.shape[3:]), stride=1)  # [B, C, t, 1, 1]; 7 x 7 pixels at the trained resolution
        logits: Tensor = self.logits(x)
        return logits.flatten(2).mean(2)


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """Use deterministic float32 convolutions, and on a CPU one thread: rounding depends on the number of threads."""
    threads = torch.get_num_threads()
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        try:
            if device.type == "cpu":
                torch.set_num_threads(1)
            yield
        finally:
            torch.set_num_threads(threads)


def _take(state: Mapping[str, Tensor], name: str, like: Tensor, path: Path) -> Tensor:
    tensor = state.get(name)
    if tensor is None or tensor.shape != like.shape:
        problem = "is missing" if tensor is None else f"has the shape {tuple(tensor.shape)}"
        raise ValueError(f"{path}: {name} {problem}, expected {tuple(like.shape)}; give the weights of I3D of TF-Hub")
    return tensor
