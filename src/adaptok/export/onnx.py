"""Export of a model to ONNX: encoder, decoder and scorer, and a JSON file that describes them.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels, `G` blocks of a clip, `K` latents of a block, `L` candidate
lengths, `D` width.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from adaptok.models.dense import DenseDecoder, DenseEncoder, DenseScorer, DenseSpectrumScorer
from adaptok.models.model import Model
from adaptok.models.scorer import Scorer
from adaptok.models.spectrum_scorer import SpectrumScorer
from adaptok.utils.extras import require
from adaptok.utils.files import replacing, sha256_of

OPSET = 18
"""Version of the ONNX operators."""
TORCH = "2.13"
"""Oldest version of PyTorch whose exporter is known to work. That of 2.6 exports an encoder with other ids, and that of
2.9 raises errors."""
DESCRIPTION_FILE = "onnx.json"
FORMAT, VERSION = "adaptok-onnx", 1
BATCH = "clips"
"""Name of the only dimension whose size is free."""
_EXTERNAL_BYTES = 2**30
"""Size of weights from which they are stored beside the graph, because a protobuf message is limited to 2 GiB."""


@dataclass(frozen=True)
class _Network:
    """A network to export, its names of tensors, and inputs `[2, …]` to trace it with."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


def check_packages() -> None:
    """Raise an ImportError if a package that the export needs is missing or too old."""
    if torch.__version__ < TORCH:
        raise ImportError(
            f"export to ONNX needs PyTorch {TORCH} or newer, found {torch.__version__}; upgrade it"
            " with: pip install --upgrade torch"
        )
    for package in ("onnx", "onnxscript"):
        require(package, extra="onnx", purpose="export to ONNX")


def export_onnx(
    model: Model, model_hash: str, folder: Path, progress: Callable[[int], None] = lambda _: None
) -> dict[str, Any]:
    """Write the networks of a model as ONNX files, and their description as `onnx.json`.

    Args:
        model: Model on the CPU in float32.
        model_hash: SHA-256 of the tokenizer's weights, which token files store.
        folder: Folder to write; it is created if necessary.
        progress: Called with the number of networks that have just been written.

    Returns:
        The content of `onnx.json`.

    Raises:
        ImportError: The packages of the extra `onnx` are missing.
    """
    check_packages()
    folder.mkdir(parents=True, exist_ok=True)
    networks = {}
    with TemporaryDirectory(dir=folder, prefix=".onnx-") as name:
        for part, network in _networks(model).items():
            networks[part] = _write(network, Path(name), part)
            progress(1)
        for path in Path(name).iterdir():
            with replacing(folder / path.name) as temporary:
                os.replace(path, temporary)
    document = {**_describe(model, model_hash), "networks": networks}
    with replacing(folder / DESCRIPTION_FILE) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return document


def _networks(model: Model) -> dict[str, _Network]:
    c = model.config.tokenizer
    clips = torch.zeros(2, c.channels, c.frames, c.size, c.size)
    ids = torch.zeros(2, c.blocks, c.latents, dtype=torch.int64)
    lengths = torch.full((2, c.blocks), c.latents)
    encoded = torch.zeros(2, c.blocks, c.latents, c.encoder.width)
    inputs = torch.zeros(2, c.blocks, c.latents, c.decoder.width)
    networks = {
        "encoder": _Network(DenseEncoder(model.tokenizer), {"clips": clips}, ("ids", "encoded", "decoder_inputs")),
        "decoder": _Network(DenseDecoder(model.tokenizer), {"ids": ids, "lengths": lengths}, ("clips",)),
    }
    if isinstance(model.scorer, SpectrumScorer):
        pixels = {"clips": clips, "lengths": lengths}
        networks["scorer"] = _Network(DenseSpectrumScorer(model.scorer), pixels, ("scores",))
    elif isinstance(model.scorer, Scorer):
        latents = {"encoded": encoded, "decoder_inputs": inputs, "lengths": lengths}
        networks["scorer"] = _Network(DenseScorer(model.scorer), latents, ("scores",))
    return networks


def _write(network: _Network, folder: Path, part: str) -> dict[str, Any]:
    """Write one network, and return its description."""
    path = folder / f"{part}.onnx"
    batch = torch.export.Dim(BATCH, min=1, max=4096)
    arguments = tuple(network.inputs.values())
    with torch.no_grad(), _quiet():
        exported = torch.onnx.export(
            network.module.eval(),
            arguments,
            dynamo=True,
            dynamic_shapes=tuple({0: batch} for _ in arguments),
            opset_version=OPSET,
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            verbose=False,
        )
        outputs = network.module(*arguments)
    assert exported is not None
    size = sum(tensor.nbytes for tensor in (*network.module.parameters(), *network.module.buffers()))
    exported.save(path, external_data=size > _EXTERNAL_BYTES)
    results = dict(zip(network.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "inputs": [_describe_tensor(name, tensor) for name, tensor in network.inputs.items()],
        "outputs": [_describe_tensor(name, tensor) for name, tensor in results.items()],
    }


def _describe_tensor(name: str, tensor: Tensor) -> dict[str, Any]:
    return {"name": name, "type": str(tensor.dtype).removeprefix("torch."), "shape": [BATCH, *tensor.shape[1:]]}


def _describe(model: Model, model_hash: str) -> dict[str, Any]:
    c, scorer = model.config.tokenizer, model.config.scorer
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "opset": OPSET,
        "model": model.config.name,
        "model_hash": model_hash,
        "codebook_size": c.quantizer.codebook_size,
        "latents": c.latents,
        "block_frames": c.temporal_patch_size,
        "clip_blocks": c.blocks,
        "size": c.size,
        "channels": c.channels,
        "pixels": {"range": [0.0, 1.0], "layout": "clips, channels, frames, height, width", "clamped": False},
        "scores": None,
    }
    if scorer is not None:
        document["scores"] = {
            "length_step": scorer.length_step,
            "distortion": scorer.distortion,
            "target": scorer.target,
            "scale": scorer.scale,
            "mean": scorer.mean,
            "std": scorer.std,
            "probe_lengths": list(scorer.probe_lengths),
        }
    return document


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which reports torchvision as missing and its own deprecated calls."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
