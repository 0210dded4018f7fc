"""Are a generator's samples of drawn shapes what they were asked to be, and does a predictor know how shapes go on?

python benchmarks/shapes.py --generator GENERATOR [--samples 100] [--cfg-scale 1.5] [--sheet samples.png] [--json]
python benchmarks/shapes.py --predictor PREDICTOR [--samples 40] [--json]

A small convolutional network learns to tell the four classes of drawn clips apart (seed 1000, at 32 x 32 pixels; never
a sample among them, nor a clip that generators are trained on, which have seed 0), and is then asked about clips that a
generator was asked for by class. What it says of drawn clips that it has not seen stands beside it.

A predictor goes on from the first frames of unseen drawn clips; its PSNR over the frames after them stands beside that
of repeating the last of them, and that of the tokenizer itself, which sees the truth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptok.codec.codec import to_bytes
from adaptok.data.synthetic.shapes import CLASSES, shape_clip
from adaptok.evaluation.report.contact_sheet import save_sheet
from adaptok.generation import Generator, Sampling

TRAINING, UNSEEN = 1000, 2000
"""Seeds of drawn clips."""
CLIPS, STEPS, BATCH = 800, 400, 32
SEEN_SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", help="folder of a generator of the classes; 'box' is the one in the box")
    parser.add_argument("--predictor", help="folder of a generator that predicts frames")
    parser.add_argument("--samples", type=int, default=100, help="clips in all")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--cfg-scale", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--sheet", type=Path, help="picture of some clips to write")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report: dict[str, Any] = {}
    if options.generator is not None:
        report["classes"] = recognised(options)
    if options.predictor is not None:
        report["frames"] = predicted(options)
    if options.json:
        print(json.dumps(report))
        return
    for part in report.values():
        print("\n".join(f"{name}: {value}" for name, value in part.items()))


def recognised(options: argparse.Namespace) -> dict[str, Any]:
    """Share of the samples that the network takes for their class."""
    generator = Generator.from_pretrained(None if options.generator == "box" else options.generator)
    classifier = train_classifier(generator.clip_frames)
    names = [CLASSES[i % len(CLASSES)] for i in range(options.samples)]
    rules = Sampling(
        temperature=options.temperature, top_k=options.top_k, top_p=options.top_p, cfg_scale=options.cfg_scale
    )
    clips: dict[int, Tensor] = {}
    tokens = []
    for index, samples in generator.iter_sample(
        names, settings=rules, seeds=list(range(len(names))), batch_size=options.batch_size
    ):
        clips[index] = generator.decode(samples)[0]
        tokens.append(int(samples.lengths.sum()))
    if options.sheet is not None:
        order = sorted(range(min(16, len(names))), key=lambda i: names[i])
        save_sheet(options.sheet, [(names[i], to_bytes(clips[i])) for i in order])
    asked = torch.tensor([CLASSES.index(name) for name in names])
    said = classify(classifier, torch.stack([clips[i] for i in range(len(names))]))
    unseen, true = drawn(UNSEEN, 200, generator.clip_frames)
    return {
        "recognised": float((said == asked).float().mean()),
        "by_class": {name: float((said == asked)[asked == i].float().mean()) for i, name in enumerate(CLASSES)},
        "tokens_per_clip": float(np.mean(tokens)),
        "classifier_on_unseen_drawn_clips": float((classify(classifier, unseen) == true).float().mean()),
    }


def predicted(options: argparse.Namespace) -> dict[str, float]:
    """PSNR of the frames after the condition, the mean over clips."""
    generator = Generator.from_pretrained(options.predictor)
    codec, first = generator.check_codec(), generator.condition_frames
    rules = Sampling(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    rows: dict[str, list[float]] = {"predicted": [], "last_frame": [], "last_frame_decoded": [], "tokenizer": []}
    shown: list[tuple[str, NDArray[np.uint8]]] = []
    clips, classes = drawn(UNSEEN, options.samples, generator.clip_frames)
    for index, clip in enumerate(clips):
        frames = to_bytes(clip)
        made = torch.from_numpy(generator.predict(frames, settings=rules, seed=index)).permute(3, 0, 1, 2) / 255
        latents = codec.encode_clips(clip[None])
        full = codec.decode_clips(latents.ids, [[codec.config.tokenizer.latents] * latents.ids.shape[1]])[0].clamp(0, 1)
        rows["predicted"].append(_psnr(made[:, first:], clip[:, first:]))
        rows["last_frame"].append(_psnr(clip[:, first - 1 : first].expand_as(clip[:, first:]), clip[:, first:]))
        rows["last_frame_decoded"].append(_psnr(full[:, first - 1 : first].expand_as(clip[:, first:]), clip[:, first:]))
        rows["tokenizer"].append(_psnr(full[:, first:], clip[:, first:]))
        if len(shown) < 16:
            shown += [(f"{CLASSES[int(classes[index])]}, truth", frames), ("predicted", to_bytes(made))]
    if options.sheet is not None:
        save_sheet(options.sheet, shown)
    return {name: float(np.mean(values)) for name, values in rows.items()}


def drawn(seed: int, count: int, frames: int, size: int = 128) -> tuple[Tensor, Tensor]:
    """Clips `[N, 3, T, S, S]` of all classes in turn, and their classes `[N]`."""
    places = [(i // len(CLASSES), i % len(CLASSES)) for i in range(count)]
    clips = torch.stack([shape_clip(seed, index, CLASSES[kind], frames, size) for index, kind in places])
    return clips, torch.tensor([kind for _, kind in places])


def train_classifier(frames: int) -> nn.Module:
    """A network that tells drawn clips apart by what is in them and how it moves."""
    torch.manual_seed(0)
    clips, classes = drawn(TRAINING, CLIPS, frames, SEEN_SIZE)
    network = nn.Sequential(
        nn.Conv3d(3, 16, 3, stride=(1, 2, 2), padding=1),
        nn.ReLU(),
        nn.Conv3d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv3d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d((2, 2, 2)),
        nn.Flatten(),
        nn.Linear(512, len(CLASSES)),
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(STEPS):
        chosen = torch.randint(len(clips), (BATCH,))
        given = clips[chosen]
        blur = int(torch.randint(1, 4, ()))  # a tokenizer's clips are less sharp than drawn ones
        given = F.interpolate(F.avg_pool3d(given, (1, blur, blur)), size=given.shape[2:]) if blur > 1 else given
        loss = F.cross_entropy(network(given - 0.5), classes[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@torch.inference_mode()
def classify(network: nn.Module, clips: Tensor) -> Tensor:
    """Classes `[N]` of clips `[N, 3, T, S, S]`."""
    factor = clips.shape[-1] // SEEN_SIZE
    said: Tensor = network(F.avg_pool3d(clips, (1, factor, factor)) - 0.5).argmax(-1)
    return said


def _psnr(made: Tensor, true: Tensor) -> float:
    return float(-10 * torch.log10((made - true).square().mean().clamp(min=1e-10)))


if __name__ == "__main__":
    main()
