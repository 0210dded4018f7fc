"""Decode a token file with onnxruntime and NumPy alone, without PyTorch or adaptok.

    adaptok export-onnx my-model my-model-onnx
    python examples/decode_onnx.py my-model-onnx clip.adaptok frames.npy

The output has the size of the model's square: uint8 frames [T, S, S, 3] in a .npy file, or a video in a .y4m file,
which FFmpeg and most players read. The token file is documented in docs/file-formats.md, the folder of the model in
docs/deployment.md.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

TOKEN_FILE_VERSION = 1
TYPES = {"U16": np.dtype("<u2"), "F32": np.dtype("<f4")}


def read_tokens(path: Path) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Read the ids [tokens], the lengths [blocks] and the properties of a token file, which is a safetensors file."""
    data = path.read_bytes()
    try:
        (header_bytes,) = struct.unpack_from("<Q", data)
        header = json.loads(data[8 : 8 + header_bytes])
        info = json.loads(header["__metadata__"]["adaptok"])
    except (struct.error, ValueError, KeyError):
        sys.exit(f"{path}: not a token file")
    if info["version"] != TOKEN_FILE_VERSION:
        sys.exit(f"{path}: version {info['version']} of the format, this example reads {TOKEN_FILE_VERSION}")
    body, arrays = data[8 + header_bytes :], {}
    for name in ("ids", "lengths"):
        start, stop = header[name]["data_offsets"]
        arrays[name] = np.frombuffer(body[start:stop], TYPES[header[name]["dtype"]]).astype(np.int64)
    return arrays["ids"], arrays["lengths"], info


def decode(folder: Path, ids: np.ndarray, lengths: np.ndarray, info: dict[str, Any]) -> Iterator[np.ndarray]:
    """Decode frames uint8 [t, S, S, 3], clip by clip."""
    model = json.loads((folder / "onnx.json").read_text(encoding="utf-8"))
    if model["model_hash"] != info["model_hash"]:
        sys.exit(f"the tokens were written by the model {info['model']!r}, {folder} holds another: {model['model']!r}")
    session = onnxruntime.InferenceSession(str(folder / model["networks"]["decoder"]["file"]))

    # one row of K ids per block, and empty blocks after the last one, to fill its clip: they do not change earlier ones
    blocks, latents = model["clip_blocks"], model["latents"]
    padded = np.zeros(-(-len(lengths) // blocks) * blocks, np.int64)
    padded[: len(lengths)] = lengths
    rows = np.zeros((len(padded), latents), np.int64)
    rows[np.arange(latents) < padded[:, None]] = ids

    left = info["frames"]  # the last block may repeat the last frame
    for first in range(0, len(rows), blocks):
        clip = slice(first, first + blocks)
        (pixels,) = session.run(None, {"ids": rows[clip][None], "lengths": padded[clip][None]})  # [1, 3, T, S, S]
        frames = np.rint(pixels[0].transpose(1, 2, 3, 0).clip(0, 1) * 255).astype(np.uint8)
        yield frames[:left]
        left -= len(frames[:left])


def write_y4m(path: Path, frames: np.ndarray, rate: str) -> None:
    """Write frames as uncompressed video, in YCbCr of BT.601 without subsampling."""
    _, height, width, _ = frames.shape
    weights = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
    planes = np.rint(frames @ weights.T + (16, 128, 128)).astype(np.uint8).transpose(0, 3, 1, 2)
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{rate.replace('/', ':')} Ip A1:1 C444\n".encode())
        for frame in planes:
            file.write(b"FRAME\n" + frame.tobytes())


def main() -> None:
    """Read the arguments, decode, and write the frames."""
    parser = argparse.ArgumentParser(description="Decode a token file with onnxruntime and NumPy.")
    parser.add_argument("model", type=Path, help="folder that 'adaptok export-onnx' wrote")
    parser.add_argument("tokens", type=Path, help="token file (.adaptok)")
    parser.add_argument("output", type=Path, help="file to write (.npy or .y4m)")
    arguments = parser.parse_args()
    ids, lengths, info = read_tokens(arguments.tokens)
    frames = np.concatenate(list(decode(arguments.model, ids, lengths, info)))
    if arguments.output.suffix == ".y4m":
        write_y4m(arguments.output, frames, info["rate"])
    else:
        np.save(arguments.output, frames)
    print(f"{arguments.output}: {len(frames)} frames of {frames.shape[2]} x {frames.shape[1]} pixels")


if __name__ == "__main__":
    main()
