"""Compare tiles with the central square at the same tokens per pixel, and measure steps at the borders of tiles.

python experiments/tiles.py FOLDER [--model MODEL] [--budget 384] [--clips 2] [--overlap PIXELS] [--json]

Measured are the first whole clips of every video (at most `--clips` of 16 frames) that is not square. PSNR is measured
at the pixels of the video, so it includes what scaling to the size of the model loses:

- crop: the central square, at `--budget` tokens per clip.
- whole: the whole frame as tiles, with as many tokens per pixel of the video as crop.
- inside, outside: the same reconstruction, inside and outside that square.

"whole" against "crop" also compares the content of the sides with that of the center, "inside" does not.

A step is the absolute difference of neighboring pixels at the scale of the model. It is averaged over both borders of
every overlap, and given as a ratio:

- border: to the mean step elsewhere in the reconstruction, which includes the faint grid of patches.
- original: the same for the original, which shows how much of it is content.
- seam: to the mean step at the same place in the tiles themselves. It is 1 if blending adds nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adaptok import AdapTok, LengthPolicy, VideoTokens
from adaptok.codec.encoded_windows import by_tile
from adaptok.data.manifests import VIDEO_SUFFIXES, find_entries
from adaptok.metrics.distortion import psnr
from adaptok.video.geometry import Geometry
from adaptok.video.sources import open_frames
from adaptok.video.tiles import tile_starts

Frames = NDArray[np.uint8]
COLUMNS = ("crop", "whole", "inside", "outside", "border", "original", "seam")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="model folder or hub id; the bundled model by default")
    parser.add_argument("--budget", type=float, default=384, help="tokens of each clip of the central square")
    parser.add_argument("--clips", type=int, default=2, help="maximum number of clips per video")
    parser.add_argument(
        "--overlap", type=int, help="smallest overlap of tiles in pixels; an eighth of a tile by default"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.overlap is not None and options.overlap < 2:
        parser.error(f"--overlap {options.overlap}, expected at least 2: steps inside tiles are measured at borders")
    codec = AdapTok.from_pretrained(options.model, device="cpu")
    results = {}
    for path, frames in read_videos(options.folder, options.clips * codec.config.tokenizer.frames, codec):
        results[path.stem] = result = measure(codec, frames, options.budget, options.overlap)
        if not options.json:
            print(line(path.stem, result), flush=True)
    if not results:
        parser.error(f"{options.folder}: no video of a whole clip that is not square")
    mean = {name: float(np.mean([result[name] for result in results.values()])) for name in COLUMNS}
    print(json.dumps({"videos": results, "mean": mean}) if options.json else line("mean", mean))


def line(title: str, result: dict[str, Any]) -> str:
    """Format a row; PSNR of tiles is relative to that of the crop."""
    quality = " ".join(f"{name} {result[name] - result['crop']:+.2f}" for name in COLUMNS[1:4])
    steps = " ".join(f"{name} {result[name]:.2f}" for name in COLUMNS[4:])
    return f"{title[:24]:24} crop {result['crop']:.2f} dB, {quality} | {steps}"


def read_videos(folder: Path, count: int, codec: AdapTok) -> Iterator[tuple[Path, Frames]]:
    """Yield the whole clips among the first `count` frames of each video that has several tiles: `[T, H, W, 3]`."""
    c = codec.config.tokenizer
    for entry in find_entries(folder, VIDEO_SUFFIXES):
        with open_frames(entry.path) as source:
            if Geometry("tile", source.width, source.height, c.size).tiles == 1:
                continue
            frames = list(islice(source.frames, count))
        if len(frames) >= c.frames:
            yield entry.path, np.stack(frames[: len(frames) // c.frames * c.frames])


def measure(codec: AdapTok, frames: Frames, budget: float, overlap: int | None) -> dict[str, Any]:
    """Measure one video `[T, H, W, 3]`."""
    _, height, width, _ = frames.shape
    square = shortened(codec, codec.encode(frames, fit="crop"), budget)
    top, left, side, _ = square.info.crop
    inside = np.zeros((height, width), bool)
    inside[top : top + side, left : left + side] = True
    crop_error = squared_error(codec.decode(square), frames)

    tiled = codec.encode(frames, fit="tile", tile_overlap=overlap)
    tiled = shortened(codec, tiled, budget * height * width / side**2 / tiled.info.tiles)
    geometry, tiles = tiled.info.geometry, decode_tiles(codec, tiled)
    canvas = geometry.merge(tiles)
    error = squared_error(geometry.invert(canvas), frames)
    errors = {
        "crop": crop_error[inside],
        "whole": error,
        "inside": error[inside],
        "outside": error[~inside],
    }
    return {
        "tiles": tiled.info.tiles,
        "canvas": geometry.canvas,
        "tokens": {"crop": square.tokens, "tile": tiled.tokens},
        **{name: float(psnr(torch.tensor(values.mean()))) for name, values in errors.items()},
        **steps(geometry, tiles, canvas, geometry.apply(frames)),
    }


def shortened(codec: AdapTok, full: VideoTokens, budget: float) -> VideoTokens:
    policy = LengthPolicy(budget, uniform=codec.config.scorer is None)
    return full.shorten(policy.lengths(full.scores, len(full.lengths), codec.layout, full.info.tiles))


def squared_error(made: Frames, true: Frames) -> NDArray[np.float64]:
    """Squared error of values in [0, 1], averaged over time and colors: `[H, W]`."""
    return np.square((made.astype(np.float64) - true) / 255).mean((0, 3))


def decode_tiles(codec: AdapTok, tokens: VideoTokens) -> Tensor:
    """Decode the tiles `[n, C, T, S, S]` of a video of whole clips, without blending them."""
    blocks, tiles = codec.config.tokenizer.blocks, tokens.info.tiles
    ids, lengths = (by_tile(torch.from_numpy(each), blocks, tiles) for each in (tokens.padded(), tokens.lengths))
    pairs = zip(ids.split(tiles), lengths.split(tiles), strict=True)
    return torch.cat([codec.decode_clips(*pair).clamp(0, 1).cpu() for pair in pairs], 2)


def steps(geometry: Geometry, tiles: Tensor, canvas: Tensor, original: Tensor) -> dict[str, float]:
    """Compare steps across the borders of tiles with those elsewhere."""
    size, overlap = geometry.size, geometry.tile_overlap or 0
    at_border: dict[str, list[Tensor]] = {"made": [], "true": [], "tiles": []}
    elsewhere: dict[str, list[Tensor]] = {"made": [], "true": []}
    for dim, length in zip((-2, -1), geometry.canvas, strict=True):
        starts = tile_starts(length, size, overlap)
        borders = sorted({edge for a, b in pairwise(starts) for edge in (a + size, b)})
        if not borders:
            continue
        at = torch.zeros(length, dtype=torch.bool)
        at[borders] = True
        at_border["tiles"].append(geometry.merge(step_before(tiles, dim)).transpose(dim, 0)[at].flatten())
        for name, clip in (("made", canvas), ("true", original)):
            step = step_before(clip, dim).transpose(dim, 0)
            at_border[name].append(step[at].flatten())
            elsewhere[name].append(step[1:][~at[1:]].flatten())
    border = {name: float(torch.cat(values).mean()) for name, values in at_border.items()}
    other = {name: float(torch.cat(values).mean()) for name, values in elsewhere.items()}
    return {
        "border": border["made"] / other["made"],
        "original": border["true"] / other["true"],
        "seam": border["made"] / border["tiles"],
    }


def step_before(clip: Tensor, dim: int) -> Tensor:
    """Absolute difference of each pixel from the one before it along a dimension; 0 for the first one."""
    first = clip.narrow(dim, 0, 1)
    return torch.diff(clip, dim=dim, prepend=first).abs()


if __name__ == "__main__":
    main()
