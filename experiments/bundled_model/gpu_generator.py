"""Train the bundled generator, on the tokens of drawn shapes, on a GPU.

    python experiments/bundled_model/gpu_generator.py --out OUT --generator-seconds 330 --shapes 12000

Figures go to `OUT/log.jsonl`, and the model folder is `OUT/generator`. `gpu_train.py` does it as its last stage.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from gpu_clips import FRAMES, PROCESSES, SIZE
from gpu_networks import generator_loss
from gpu_session import Optimization, Session
from numpy.typing import NDArray
from torch import Tensor

import adaptok
from adaptok import AdapTok
from adaptok.allocation.policy import LengthPolicy
from adaptok.checkpoints.model_folder import read_generator, write_folder
from adaptok.config.optimization import OptimizerConfig
from adaptok.data.synthetic.shapes import CLASSES, draw_shape_clip
from adaptok.generation.sequences import join_blocks
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import weights_hash

ASSETS = Path(adaptok.__file__).parent / "assets"
MEAN_TOKENS = 64
"""Mean number of tokens per block of the training data."""
BATCH_SIZE = 64
"""Clips tokenized at once."""
HELD_OUT = 0.02
LOG_STEPS = 100
VALIDATION_STEPS = 2000
DRAWN_AT_ONCE = 64

Sequences = list[NDArray[np.int64]]


class Shapes:
    """Drawn clips uint8 `[N, T, S, S, 3]` in a file, whose classes alternate. Processes draw them in the background."""

    def __init__(self, path: Path, per_class: int, processes: int) -> None:
        self.path = path
        shape = (per_class * len(CLASSES), FRAMES, SIZE, SIZE, 3)
        self.values = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
        self._pool = ProcessPoolExecutor(processes, PROCESSES, torch.set_num_threads, (1,))
        starts = range(0, shape[0], DRAWN_AT_ONCE)
        self._drawn: list[Future[None]] = [self._pool.submit(draw_shapes, path, start) for start in starts]

    def wait(self) -> NDArray[np.uint8]:
        """Return the clips once all are drawn, and remove the file."""
        for future in self._drawn:
            future.result()
        self._pool.shutdown()
        self.path.unlink()
        values: NDArray[np.uint8] = self.values
        return values


def draw_shapes(path: Path, start: int) -> None:
    """Draw clip `start` and the next ones of a file of shapes."""
    shapes = np.lib.format.open_memmap(path, "r+")
    for i in range(start, min(start + DRAWN_AT_ONCE, len(shapes))):
        clip = draw_shape_clip(0, i // len(CLASSES), CLASSES[i % len(CLASSES)], FRAMES, SIZE)
        shapes[i] = (clip.permute(1, 2, 3, 0) * 255).round().byte().numpy()


@torch.no_grad()
def tokenize(session: Session, shapes: NDArray[np.uint8]) -> Sequences:
    """Tokenize drawn clips. Those of a batch share a budget."""
    torch.set_float32_matmul_precision("highest")  # for the ids that a CPU computes
    model = session.model.eval()
    codec = AdapTok(model, weights_hash(model.state_dict()))
    layout = codec.layout
    policy = LengthPolicy(MEAN_TOKENS * layout.blocks, effort=0)
    sequences: Sequences = []
    for start in range(0, len(shapes), BATCH_SIZE):
        clips = torch.from_numpy(shapes[start : start + BATCH_SIZE]).to(session.device)
        encoded = codec.encode_clips(clips.permute(0, 4, 1, 2, 3).float() / 255)
        scores = codec.allocation_scores(encoded, policy).flatten(0, 1).cpu().numpy()
        chosen = policy.lengths(scores, len(scores), layout).reshape(-1, layout.blocks)
        for ids, lengths in zip(encoded.ids.cpu(), torch.from_numpy(chosen), strict=True):
            kept = torch.cat([own[:n] for own, n in zip(ids, lengths.tolist(), strict=True)])
            sequences.append(join_blocks(kept, lengths, codec.config.tokenizer.quantizer.codebook_size))
    torch.set_float32_matmul_precision("high")
    return sequences


def train_generator(session: Session, shapes: Shapes) -> None:
    """Train the generator on the tokens of drawn shapes, and write its folder."""
    options, device = session.options, session.device
    sequences = tokenize(session, shapes.wait())
    held_out = max(1, round(len(sequences) * HELD_OUT))
    session.log("generator data", clips=len(sequences), tokens=np.mean([len(s) for s in sequences]))
    source = read_generator(options.initial_generator)
    names = {"model": session.model.config.name, "model_hash": weights_hash(session.model.state_dict())}
    config = source.config.model_copy(update=names)
    model = GeneratorModel(config)
    model.load_state_dict(source.state_dict())
    model.to(device).train()
    optimization = Optimization(
        model,
        "",
        OptimizerConfig(kind="muon", lr=3e-3, weight_decay=0.05, decay_vectors=False),
        options.generator_seconds,
        0.995,
    )
    rng = np.random.default_rng(73)

    def batch(chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        entries = np.full((len(chosen), max(len(sequences[i]) for i in chosen)), -1)
        for row, i in zip(entries, chosen, strict=True):
            row[: len(sequences[i])] = sequences[i]
        return torch.from_numpy(chosen % len(CLASSES)).to(device), torch.from_numpy(entries).to(device)

    def save() -> None:
        """Validate the averaged weights, and write them."""
        averaged = GeneratorModel(config).to(device).eval()
        averaged.load_state_dict(optimization.average)
        with torch.no_grad(), session.autocast():
            rows = [rows for rows in np.array_split(np.arange(held_out), max(1, held_out // BATCH_SIZE)) if len(rows)]
            losses = [generator_loss(averaged, *batch(some)).item() for some in rows]
        session.log("generator validation", step=optimization.steps, loss=np.mean(losses))
        write_folder(averaged, options.out / "generator", torch.bfloat16)

    while not optimization.finished:
        classes, entries = batch(rng.integers(held_out, len(sequences), options.generator_batch_size))
        unconditional = torch.rand(len(classes), generator=session.rng, device=device) < config.class_dropout
        with session.autocast():
            loss = generator_loss(model, torch.where(unconditional, config.classes, classes), entries)
        optimization.step(loss)
        if optimization.steps % LOG_STEPS == 0:
            session.log("generator", step=optimization.steps, loss=loss.item())
        if optimization.steps % VALIDATION_STEPS == 0:
            save()
    save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    add_options(parser)
    options = parser.parse_args()
    session = Session(options)
    train_generator(session, Shapes(options.out / "shapes.npy", options.shapes, options.workers))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the generator, and those that all stages share."""
    parser.add_argument("--initial", type=Path, default=ASSETS / "adaptok-tiny", help="tokenizer and scorer")
    parser.add_argument("--initial-generator", type=Path, default=ASSETS / "adaptok-tiny-generator")
    parser.add_argument("--generator-seconds", type=float, default=60.0)
    parser.add_argument("--generator-batch-size", type=int, default=128)
    parser.add_argument("--shapes", type=int, default=2500, help="clips of each class that the generator is trained on")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that prepare data")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sdpa", action="store_true", help="SDPA with dense masks instead of FlexAttention")


if __name__ == "__main__":
    main()
