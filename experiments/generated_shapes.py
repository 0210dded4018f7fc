"""Judge generated clips of drawn shapes by the class that a classifier sees, and predicted ones by PSNR.

python experiments/generated_shapes.py --generator GENERATOR [--samples 100] [--cfg-scale 1.5] [--sheet samples.png]
python experiments/generated_shapes.py --predictor PREDICTOR [--samples 40]

A small convolutional network is trained to classify drawn clips (seed 1000, at 32 x 32 pixels; generators are trained
on seed 0), and then classifies the samples of a class-conditional generator. Its accuracy on unseen drawn clips is
printed for comparison.

A predictor continues the first frames of unseen drawn clips. Its PSNR over the following frames is printed beside
that of repeating the last given frame, and that of the tokenizer, which encodes the true frames.
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

from adaptok.data.synthetic.shapes import CLASSES, draw_shape_clip
from adaptok.evaluation.report.contact_sheet import save_sheet
from adaptok.generation import Generator, Sampling
from adaptok.metrics.distortion import psnr
from adaptok.video.pixels import clip_to_frames

TRAINING, UNSEEN = 1000, 2000
"""Seeds of the drawn clips."""
CLIPS, STEPS, BATCH = 800, 400, 32
SEEN_SIZE = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", help="folder of a class-conditional generator, or 'bundled'")
    parser.add_argument("--predictor", help="folder of a frame prediction generator")
    parser.add_argument("--samples", type=int, default=100, help="total number of clips")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--cfg-scale", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--sheet", type=Path, help="image of some clips to write")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    report: dict[str, Any] = {}
    if options.generator is not None:
        report["classes"] = recognized(options)
    if options.predictor is not None:
        report["frames"] = predicted(options)
    if options.json:
        print(json.dumps(report))
        return
    for figures in report.values():
        print("\n".join(f"{name}: {value}" for name, value in figures.items()))


def recognized(options: argparse.Namespace) -> dict[str, Any]:
    """Fraction of the samples that the network assigns to their class."""
    generator = Generator.from_pretrained(None if options.generator in ("bundled", "box") else options.generator)
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
        save_sheet(options.sheet, [(names[i], clip_to_frames(clips[i])) for i in order])
    asked = torch.tensor([CLASSES.index(name) for name in names])
    said = classify(classifier, torch.stack([clips[i] for i in range(len(names))]))
    unseen, true = drawn(UNSEEN, 200, generator.clip_frames)
    return {
        "recognized": float((said == asked).float().mean()),
        "by_class": {name: float((said == asked)[asked == i].float().mean()) for i, name in enumerate(CLASSES)},
        "tokens_per_clip": float(np.mean(tokens)),
        "classifier_on_unseen_drawn_clips": float((classify(classifier, unseen) == true).float().mean()),
    }


def predicted(options: argparse.Namespace) -> dict[str, float]:
    """PSNR of the frames after the condition, averaged over clips."""
    generator = Generator.from_pretrained(options.predictor)
    codec, first = generator.check_codec(), generator.condition_frames
    rules = Sampling(temperature=options.temperature, top_k=options.top_k, top_p=options.top_p)
    rows: dict[str, list[float]] = {"predicted": [], "last_frame": [], "last_frame_decoded": [], "tokenizer": []}
    shown: list[tuple[str, NDArray[np.uint8]]] = []
    clips, classes = drawn(UNSEEN, options.samples, generator.clip_frames)
    for index, clip in enumerate(clips):
        frames = clip_to_frames(clip)
        made = torch.from_numpy(generator.predict(frames, settings=rules, seed=index)).permute(3, 0, 1, 2) / 255
        latents = codec.encode_clips(clip[None])
        full = codec.decode_clips(latents.ids, [[codec.config.tokenizer.latents] * latents.ids.shape[1]])[0].clamp(0, 1)
        rows["predicted"].append(_psnr(made[:, first:], clip[:, first:]))
        rows["last_frame"].append(_psnr(clip[:, first - 1 : first].expand_as(clip[:, first:]), clip[:, first:]))
        rows["last_frame_decoded"].append(_psnr(full[:, first - 1 : first].expand_as(clip[:, first:]), clip[:, first:]))
        rows["tokenizer"].append(_psnr(full[:, first:], clip[:, first:]))
        if len(shown) < 16:
            shown += [(f"{CLASSES[int(classes[index])]}, truth", frames), ("predicted", clip_to_frames(made))]
    if options.sheet is not None:
        save_sheet(options.sheet, shown)
    return {name: float(np.mean(values)) for name, values in rows.items()}


def drawn(seed: int, count: int, frames: int, size: int = 128) -> tuple[Tensor, Tensor]:
    """Draw clips `[N, 3, T, S, S]` of all classes in turn; also returns their classes `[N]`."""
    places = [(i // len(CLASSES), i % len(CLASSES)) for i in range(count)]
    clips = torch.stack([draw_shape_clip(seed, index, CLASSES[kind], frames, size) for index, kind in places])
    return clips, torch.tensor([kind for _, kind in places])


def train_classifier(frames: int) -> nn.Module:
    """Train a network that classifies drawn clips."""
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
        blur = int(torch.randint(1, 4, ()))  # decoded clips are less sharp than drawn ones
        given = F.interpolate(F.avg_pool3d(given, (1, blur, blur)), size=given.shape[2:]) if blur > 1 else given
        loss = F.cross_entropy(network(given - 0.5), classes[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@torch.inference_mode()
def classify(network: nn.Module, clips: Tensor) -> Tensor:
    """Predict the classes `[N]` of clips `[N, 3, T, S, S]`."""
    factor = clips.shape[-1] // SEEN_SIZE
    said: Tensor = network(F.avg_pool3d(clips, (1, factor, factor)) - 0.5).argmax(-1)
    return said


def _psnr(made: Tensor, true: Tensor) -> float:
    return float(psnr((made - true).square().mean()))


if __name__ == "__main__":
    main()
