"""Measure the true distortion of clips at every combination of candidate lengths.

python experiments/allocation/measure.py FOLDER OUT.npz [--model MODEL] [--lengths 16,48,64] [--lpips WEIGHTS]
    [--device cuda]

Measured is the first clip of every video in the folder. Block i never depends on later blocks, so its distortion is
measured once for every combination of the lengths of blocks 0 to i. Each prefix is decoded once, for all clips.

OUT.npz holds `lengths [n]`, `names [N]`, and for each measure (`mse`, and `lpips` if asked for) and block i an array
`MEASURE_i [N, n, ..., n]` with i + 1 axes of lengths.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from adaptok import AdapTok
from adaptok.config.model import Distortion
from adaptok.data.manifests import VIDEO_SUFFIXES, find_entries
from adaptok.metrics.distortion import block_distortion
from adaptok.metrics.lpips import Lpips
from adaptok.video.geometry import Geometry
from adaptok.video.sources import open_frames

Floats = NDArray[np.float64]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", help="model folder or hub id; the bundled model by default")
    parser.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")])
    parser.add_argument("--lpips", type=Path, help="also measure LPIPS (VGG) with these weights")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    codec = AdapTok.from_pretrained(options.model, device=options.device)
    latents, step = codec.config.tokenizer.latents, codec.length_step
    lengths = options.lengths or sorted({max(1, round(latents * part / step)) * step for part in FRACTIONS})
    names, clips = zip(*read_clips(codec, options.folder), strict=True)
    lpips = Lpips.from_file(options.lpips).to(codec.device) if options.lpips else None
    measured = measure_combinations(codec, torch.stack(clips).to(codec.device), lengths, lpips)
    arrays: dict[str, Any] = {"lengths": np.array(lengths), "names": np.array(names), **measured}
    np.savez(options.out, **arrays)


FRACTIONS = (1 / 12, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 1)
"""Default lengths, as fractions of a block: 16, 48, 64, 96, 128 and 192 of 192 latents."""


def read_clips(codec: AdapTok, folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the first clip `[C, T, S, S]` of each video that is long enough."""
    c = codec.config.tokenizer
    for entry in find_entries(folder, VIDEO_SUFFIXES):
        with open_frames(entry.path) as source:
            frames = list(itertools.islice(source.frames, c.frames))
            geometry = Geometry("crop", source.width, source.height, c.size)
        if len(frames) == c.frames:
            yield Path(entry.path).stem, geometry.apply(np.stack(frames))


@torch.no_grad()
def measure_combinations(
    codec: AdapTok, clips: Tensor, lengths: Sequence[int], lpips: Lpips | None = None
) -> dict[str, Floats]:
    """Measure clips `[N, C, T, S, S]` at every combination of lengths; the result is described at the top."""
    tokenizer = codec.model.tokenizer
    c, n = tokenizer.config, len(lengths)
    inputs = codec.encode_clips(clips).inputs
    kinds: tuple[Distortion, ...] = ("mse",) if lpips is None else ("mse", "lpips")
    measured = {f"{kind}_{i}": np.zeros((len(clips), *[n] * (i + 1))) for kind in kinds for i in range(c.blocks)}
    cache = tokenizer.decoder_cache()
    ends = [0] * (c.blocks + 1)
    progress = Progress()
    task = progress.add_task("Decoding blocks", total=sum(n ** (i + 1) for i in range(c.blocks)))

    def measure(chosen: tuple[int, ...]) -> None:
        """Measure the block after the chosen ones, whose rows the cache holds, and then those after it."""
        block = len(chosen)
        if block == c.blocks:
            return
        frames = clips[:, :, block * c.temporal_patch_size :][:, :, : c.temporal_patch_size]
        for level, length in enumerate(lengths):
            cache.keep(ends[block], block)
            decoded = tokenizer.decode(inputs[:, block : block + 1], [[length]] * len(clips), cache)
            decoded = decoded.float().clamp(0, 1)
            for kind in kinds:
                distortion = block_distortion(decoded, frames, kind, c.temporal_patch_size, lpips)[:, 0]
                values, index = np.moveaxis(measured[f"{kind}_{block}"], 0, -1), (*chosen, level)  # [n, ..., n, N]
                values[index] = distortion.double().cpu().numpy()
            progress.advance(task)
            ends[block + 1] = cache.rows
            measure((*chosen, level))

    with progress:
        measure(())
    return measured


if __name__ == "__main__":
    main()
