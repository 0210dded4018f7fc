"""Sharpen the output of a tokenizer: fit its output layer to its own reconstructions after a sharpening filter.

python experiments/bundled_model/sharpen.py CONFIG.yaml OUT --initial MODEL [--data DIR ...] [--amount 0.65]

The filter adds the amount times the difference from a Gaussian blur of 3 x 3 pixels. It is linear, and so is the output
layer, so that the fit reproduces it almost exactly, at no cost when decoding. Clips and lengths are those of the
configuration of a scorer run. Token ids stay the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from scorer_targets import load_scorer_config
from torch import Tensor

from adaptok.checkpoints.model_folder import read_folder, write_folder
from adaptok.training.clip_data import open_clip_data
from adaptok.training.initialization.output_fit import fit_output_layer
from adaptok.training.objectives import draw_lengths

BATCH_SIZE = 8
FIRST_CLIP = 500_000
"""Index of the first clip to fit to, beyond those that training has seen."""
SIGMA = 0.75
"""Standard deviation of the blur, in pixels."""
RIDGE = 1e-4


def details(clips: Tensor) -> Tensor:
    """What a blur removes from clips `[B, C, T, S, S]`."""
    weights = torch.exp(-torch.tensor([-1.0, 0.0, 1.0]).square() / (2 * SIGMA**2))
    weights = weights / weights.sum()
    kernel = (weights[:, None] * weights)[None, None]
    frames = clips.reshape(-1, 1, *clips.shape[3:])
    return (frames - F.conv2d(F.pad(frames, (1,) * 4, mode="replicate"), kernel)).view_as(clips)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="configuration of a scorer run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--initial", type=Path, required=True)
    parser.add_argument("--data", nargs="+", help="folders to train on, instead of data.train")
    parser.add_argument("--amount", type=float, default=0.65)
    parser.add_argument("--clips", type=int, default=240)
    options = parser.parse_args(arguments)
    config = load_scorer_config(options.config, options.data)
    data, blocks = open_clip_data(config).train, config.model.tokenizer.blocks
    model = read_folder(options.initial).build().eval()

    def batches() -> Iterator[tuple[Tensor, list[list[int]]]]:
        rng = torch.Generator().manual_seed(5)
        for start in track(range(0, options.clips, BATCH_SIZE), "fitting the output layer"):
            clips = torch.stack([data[FIRST_CLIP + start + i] for i in range(BATCH_SIZE)])
            yield clips, draw_lengths(config.lengths, BATCH_SIZE, blocks, rng)

    fit_output_layer(model.tokenizer, batches(), RIDGE, lambda _, made: made + options.amount * details(made))
    write_folder(model, options.out)


if __name__ == "__main__":
    main()
