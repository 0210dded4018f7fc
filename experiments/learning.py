"""Check that the preset tiny learns: that it overfits a few clips and uses its codebook.

python experiments/learning.py overfit FOLDER [--clips 8] [--steps 560] [--out RUN]
python experiments/learning.py codebook MODEL FOLDER… [--clips 2000]

`overfit` trains on the first clip of each of a few videos and prints minutes and PSNR at every multiple of 8 latents;
`codebook` prints the fraction of the codebook that random training clips of the folders use at full length.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adaptok import AdapTok
from adaptok.config.training import TrainingConfig, load_config
from adaptok.data.clips import fixed_clips
from adaptok.metrics.distortion import psnr
from adaptok.models.model import Model
from adaptok.models.tokenizer import Tokenizer
from adaptok.training.clip_data import ClipData, open_clip_data
from adaptok.training.trainer import Trainer

STEP = 8


class Repeated(Dataset[Tensor]):
    """Repeat a few clips forever."""

    def __init__(self, clips: Tensor) -> None:
        self.clips = clips

    def __getitem__(self, index: int) -> Tensor:
        return self.clips[index % len(self.clips)]


@torch.inference_mode()
def quality(tokenizer: Tokenizer, clips: Tensor) -> dict[int, float]:
    """PSNR in dB, averaged over clips, at every multiple of 8 latents."""
    config = tokenizer.config
    inputs = tokenizer.project_codes(tokenizer.quantize(tokenizer.encode(clips)).codes)
    values = {}
    for length in range(STEP, config.latents + 1, STEP):
        decoded = tokenizer.decode(inputs, [[length] * config.blocks] * len(clips)).clamp(0, 1)
        values[length] = psnr((decoded - clips).square().mean((1, 2, 3, 4))).mean().item()
    return values


def overfit(folder: str, count: int, steps: int, out: Path | None) -> None:
    values = load_config("tiny", "tokenizer").model_dump()
    values |= {"max_steps": steps, "batch_size": 4, "ema_decay": 0.98, "trackers": ()}
    values |= {"validate_every": steps, "checkpoint_every": steps}
    values["data"] |= {"workers": 0, "validation": None}
    # under the uniform law alone the last latents are rarely kept and have little to learn from
    whole = {"kind": "fixed", "length": values["lengths"]["max"]}
    values["lengths"] = {"kind": "mixture", "components": [values["lengths"], whole], "weights": [0.7, 0.3]}
    values["optimizer"] |= {"lr": 6e-4, "warmup_steps": 30}
    config = TrainingConfig.parse(values)
    tokenizer = config.model.tokenizer
    clips = fixed_clips(folder, frames=tokenizer.frames, size=tokenizer.size, per_video=1)[:count]
    with tempfile.TemporaryDirectory() as temporary:
        started = time.monotonic()
        model = Trainer(config, ClipData(Repeated(clips), None), out or Path(temporary), print).train()
        minutes = (time.monotonic() - started) / 60
    assert isinstance(model, Model)
    psnr_by_length = quality(model.tokenizer, clips)
    for length, value in psnr_by_length.items():
        print(f"{length:4d} latents a block: {value:.2f} dB")
    measured = list(psnr_by_length.values())
    rises = sum(b > a for a, b in pairwise(measured))
    print(
        f"{len(clips)} clips, {steps} steps, {minutes:.1f} minutes; {rises} of {len(measured) - 1} steps of length rise"
    )


@torch.inference_mode()
def codebook(model: str, folders: list[str], count: int) -> None:
    tokenizer = AdapTok.from_pretrained(model).model.tokenizer
    values = load_config("tiny", "tokenizer").model_dump()
    values["data"] |= {"train": tuple(folders), "validation": None}
    clips = open_clip_data(TrainingConfig.parse(values)).train
    used = torch.zeros(tokenizer.config.quantizer.codebook_size, dtype=torch.long)
    for start in range(0, count, 8):
        ids = tokenizer.quantize(tokenizer.encode(torch.stack([clips[start + i] for i in range(8)]))).ids
        used += torch.bincount(ids.flatten(), minlength=len(used))
    fractions = used[used > 0].double() / used.sum()
    bits = -(fractions * fractions.log2()).sum().item()
    print(f"{(used > 0).float().mean():.1%} of {len(used)} entries used by {used.sum()} ids; entropy {bits:.2f} bits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("overfit")
    one.add_argument("folder")
    one.add_argument("--clips", type=int, default=8)
    one.add_argument("--steps", type=int, default=560)
    one.add_argument("--out", type=Path)
    other = commands.add_parser("codebook")
    other.add_argument("model")
    other.add_argument("folders", nargs="+")
    other.add_argument("--clips", type=int, default=2000)
    options = parser.parse_args()
    if options.command == "overfit":
        overfit(options.folder, options.clips, options.steps, options.out)
    else:
        codebook(options.model, options.folders, options.clips)


if __name__ == "__main__":
    main()
