"""Decode a token file with onnxruntime and NumPy alone, without PyTorch or adaptok.

    adaptok export-onnx my-model my-model-onnx
    python examples/decode_onnx.py my-model-onnx clip.adaptok frames.npy

The output has the scale of the model, not of the original video: uint8 frames [T, h, w, 3] in a .npy file, or a video
in a .y4m file, which FFmpeg and most players read. The token file is documented in docs/file-formats.md, the folder of
the model in docs/deployment.md.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

TOKEN_FILE_VERSIONS = (1, 2)
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
    if info["version"] not in TOKEN_FILE_VERSIONS:
        sys.exit(f"{path}: version {info['version']} of the format, this example reads {TOKEN_FILE_VERSIONS}")
    body, arrays = data[8 + header_bytes :], {}
    for name in ("ids", "lengths"):
        start, stop = header[name]["data_offsets"]
        arrays[name] = np.frombuffer(body[start:stop], TYPES[header[name]["dtype"]]).astype(np.int64)
    return arrays["ids"], arrays["lengths"], info


def decode(folder: Path, ids: np.ndarray, lengths: np.ndarray, info: dict[str, Any]) -> np.ndarray:
    """Decode frames uint8 [T, h, w, 3]."""
    model = json.loads((folder / "onnx.json").read_text(encoding="utf-8"))
    if model["model_hash"] != info["model_hash"]:
        sys.exit(f"the tokens were written by the model {info['model']!r}, {folder} holds another: {model['model']!r}")
    session = onnxruntime.InferenceSession(str(folder / model["networks"]["decoder"]["file"]))
    rows, columns = tile_starts(info)
    tiles, blocks, latents = len(rows) * len(columns), model["clip_blocks"], model["latents"]

    # one row of K ids per block, and empty blocks after the last ones to fill their clips: they change no other block
    padded = np.zeros(-(-len(lengths) // (tiles * blocks)) * tiles * blocks, np.int64)
    padded[: len(lengths)] = lengths
    id_rows = np.zeros((len(padded), latents), np.int64)
    id_rows[np.arange(latents) < padded[:, None]] = ids
    clip_lengths = padded.reshape(-1, blocks, tiles).swapaxes(1, 2)  # blocks are in order of time, then of tiles
    clip_ids = id_rows.reshape(-1, blocks, tiles, latents).swapaxes(1, 2)

    overlap = info.get("window_overlap", 0)  # frames that a clip shares with the next one
    video = np.zeros((0, 3, *canvas_size(info)), np.float32)
    for clip in zip(clip_ids, clip_lengths, strict=True):
        decoded = [session.run(None, {"ids": i[None], "lengths": n[None]})[0][0] for i, n in zip(*clip, strict=True)]
        frames = merge_tiles([tile.clip(0, 1) for tile in decoded], rows, columns).swapaxes(0, 1)  # [t, 3, h, w]
        if len(video) and overlap:
            weight = fade_in(overlap)[:, None, None, None]
            video[-overlap:] += weight * (frames[:overlap] - video[-overlap:])
            frames = frames[overlap:]
        video = np.concatenate([video, frames])
    video = video[: info["frames"]]  # the last block may repeat the last frame
    return np.rint(video.transpose(0, 2, 3, 1) * 255).astype(np.uint8)


def canvas_size(info: dict[str, Any]) -> tuple[int, int]:
    """Height and width of the decoded frames: the model's square, or the canvas that tiles cover."""
    size, sides = info["size"], (info["height"], info["width"])
    if info["fit"] != "tile":
        return size, size
    short = info["short_side"]
    height, width = (canvas_side(max(short, round(side * short / min(sides))), info) for side in sides)
    return height, width


def canvas_side(length: int, info: dict[str, Any]) -> int:
    """A side of the canvas, on which the distance between tiles is an odd multiple of a 16th of their size."""
    size, overlap = info["size"], info["tile_overlap"]
    if length <= size + size // 32:
        return size
    unit, gaps = max(1, size // 16), -(-(length - overlap) // (size - overlap)) - 1
    multiple = 2 * round(((length - size) / gaps / unit - 1) / 2) + 1
    largest = (size - overlap) // unit
    return size + gaps * unit * max(1, min(multiple, largest - 1 + largest % 2))


def tile_starts(info: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Top edges of the rows of tiles, and left edges of the columns."""
    size, starts = info["size"], []
    for length in canvas_size(info):
        overlap = info.get("tile_overlap", 0)
        count = 1 if length == size else -(-(length - overlap) // (size - overlap))
        starts.append([round(i * (length - size) / (count - 1)) if i else 0 for i in range(count)])
    return starts[0], starts[1]


def merge_tiles(tiles: list[np.ndarray], rows: list[int], columns: list[int]) -> np.ndarray:
    """Blend tiles [3, T, S, S] into a canvas [3, T, h, w]."""
    size = tiles[0].shape[-1]
    canvas = np.zeros((*tiles[0].shape[:2], rows[-1] + size, columns[-1] + size), np.float32)
    total = np.zeros(canvas.shape[2:], np.float32)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, len(columns))
        weight = edge_weights(rows, row, size)[:, None] * edge_weights(columns, column, size)
        place = slice(rows[row], rows[row] + size), slice(columns[column], columns[column] + size)
        canvas[(..., *place)] += tile * weight
        total[place] += weight
    return canvas / total


def edge_weights(starts: list[int], index: int, size: int) -> np.ndarray:
    """Weights [S] of a tile along an axis. They rise from 0 where it overlaps its neighbors, within S / 8 pixels."""
    weights, longest = np.ones(size, np.float32), max(1, size // 8)
    if index:
        ramp = fade_in(min(starts[index - 1] + size - starts[index], longest))
        weights[: len(ramp)] *= ramp
    if index + 1 < len(starts):
        ramp = fade_in(min(starts[index] + size - starts[index + 1], longest))
        weights[size - len(ramp) :] *= ramp[::-1]
    return weights


def fade_in(length: int) -> np.ndarray:
    """Weights that rise from 0 to 1 as the square of a sine."""
    weights: np.ndarray = (np.sin((np.arange(length) + 0.5) / length * np.pi / 2) ** 2).astype(np.float32)
    return weights


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
    frames = decode(arguments.model, ids, lengths, info)
    if arguments.output.suffix == ".y4m":
        write_y4m(arguments.output, frames, info["rate"])
    else:
        np.save(arguments.output, frames)
    print(f"{arguments.output}: {len(frames)} frames of {frames.shape[2]} x {frames.shape[1]} pixels")


if __name__ == "__main__":
    main()
