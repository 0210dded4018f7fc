"""Measure the targets of a cumulative scorer once, so that it can be trained on them for many epochs on a CPU.

python experiments/bundled_model/scorer_targets.py CONFIG.yaml OUT --initial MODEL [--data DIR ...] [--part 0/2]
    [--device cuda]

Decoding takes most of the time of a scorer run. Here each clip is encoded once, lengths are drawn for it, and each of
its blocks is decoded with all later ones at a few candidate lengths, one from each part of their range. OUT gets a file
for every 8 clips, which share their lengths; files that exist are kept, so the same command resumes (if they lack
`spectrum`, it is added). `--part 0/2` and `--part 1/2` share the work between two processes. `train_scorer.py` reads
the folder.

Each file holds `encoded` float16 `[B, G, K, D]`, `ids` int32 `[B, G, K]`, `lengths` int32 `[G]`, `columns` int32
`[G, n]` (indices of candidate lengths), `distortions` float32 `[B, G, n]` and `spectrum` float32 `[B, G, F]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor

from adaptok.checkpoints.model_folder import read_folder
from adaptok.codec.length_selection import measure_cumulative
from adaptok.config.model import ScorerConfig
from adaptok.config.training import TrainingConfig, load_config
from adaptok.models.spectrum_scorer import spectrum_features
from adaptok.models.tokenizer import Tokenizer
from adaptok.training.clip_data import open_clip_data
from adaptok.training.objectives import draw_lengths
from adaptok.utils.files import replacing

BATCH_SIZE = 8
CANDIDATES = 4
"""Candidate lengths measured per block."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="configuration of a scorer run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--initial", type=Path, required=True, help="model folder with the tokenizer")
    parser.add_argument("--data", nargs="+", help="folders to train on, instead of data.train")
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    part, parts = (int(number) for number in options.part.split("/"))
    config = load_scorer_config(options.config, options.data)
    data = open_clip_data(config)
    tokenizer = read_folder(options.initial).build().tokenizer.eval().to(options.device)
    scorer = config.model.scorer
    assert scorer is not None
    options.out.mkdir(parents=True, exist_ok=True)
    numbers = range(part, options.clips // BATCH_SIZE, parts)
    for number in track(numbers, f"measuring part {options.part}"):
        path = options.out / f"{number:06d}.safetensors"
        made = load_file(path) if path.exists() else None
        if made is not None and "spectrum" in made:
            continue
        clips = torch.stack([data.train[number * BATCH_SIZE + i] for i in range(BATCH_SIZE)])
        if made is None:
            rng = torch.Generator().manual_seed(number)
            lengths = draw_lengths(config.lengths, 1, config.model.tokenizer.blocks, rng)[0]
            made = measure(tokenizer, clips.to(options.device), lengths, scorer, rng)
        made["spectrum"] = spectrum_features(clips, config.model.tokenizer.blocks)
        with replacing(path) as temporary:
            save_file(made, temporary)


def load_scorer_config(path: str, data: Sequence[str] | None) -> TrainingConfig:
    """Load the configuration of a scorer run, with other folders to train on, if any."""
    config = load_config(path, "scorer")
    if not data:
        return config
    return config.model_copy(update={"data": config.data.model_copy(update={"train": tuple(data)})})


@torch.no_grad()
def measure(
    tokenizer: Tokenizer, clips: Tensor, lengths: list[int], scorer: ScorerConfig, rng: torch.Generator
) -> dict[str, Tensor]:
    """Measure clips `[B, C, T, S, S]` whose blocks have these lengths, with one block at a time at other lengths."""
    step, kind = scorer.length_step, scorer.distortion
    encoded = tokenizer.encode(clips)
    quantized = tokenizer.quantize(encoded)
    inputs = tokenizer.project_codes(quantized.codes)
    levels = tokenizer.config.latents // step
    columns, distortions = [], []
    for block in range(tokenizer.config.blocks):
        # one candidate from each part of their range
        drawn = (torch.arange(CANDIDATES) + torch.rand(CANDIDATES, generator=rng)) * levels / CANDIDATES
        columns.append(drawn.int())
        candidates = [(column + 1) * step for column in columns[-1].tolist()]
        distortions.append(measure_cumulative(tokenizer, clips, inputs, lengths, block, candidates, kind))
    made = {
        "encoded": encoded.half(),
        "ids": quantized.ids.int(),
        "lengths": torch.tensor(lengths, dtype=torch.int32),
        "columns": torch.stack(columns),
        "distortions": torch.stack(distortions, 1),
    }
    return {name: tensor.cpu() for name, tensor in made.items()}


if __name__ == "__main__":
    main()
