"""Training of the generator of drawn shapes on a GPU."""

from __future__ import annotations

import math
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from gpu_clips import FRAMES, PROCESSES, SIZE
from gpu_networks import TrainingTokenizer, generator_loss
from gpu_session import Optimization, Session
from numpy.typing import NDArray
from torch import Tensor

from adaptok.checkpoints.model_folder import read_generator, write_folder
from adaptok.config.optimization import OptimizerConfig
from adaptok.data.synthetic.shapes import CLASSES, draw_shape_clip
from adaptok.generation.sequences import join_blocks
from adaptok.models.dense import DenseScorer
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import weights_hash
from adaptok.models.scorer import Scorer

MEAN_TOKENS = 64
"""Mean number of tokens per block of the training data."""
BATCH_SIZE = 64
"""Clips tokenized at once."""
HELD_OUT = 0.02
LOG_STEPS = 100
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
    """Tokenize drawn clips, with lengths chosen block after block by a common λ."""
    tokenizer, scorer = session.model.tokenizer, session.model.scorer
    assert isinstance(scorer, Scorer)
    c = tokenizer.config
    torch.set_float32_matmul_precision("highest")  # for the ids that a CPU computes
    training, dense = TrainingTokenizer(tokenizer, BATCH_SIZE, False), DenseScorer(scorer).to(session.device)
    mask, step = training.encoder_mask(), scorer.config.length_step
    candidates = torch.arange(step, c.latents + 1, step, device=session.device)

    def choose(encoded: Tensor, inputs: Tensor, lmbda: float) -> Tensor:
        lengths = torch.full((len(encoded), c.blocks), c.latents, device=session.device)
        for block in range(c.blocks):
            scores = scorer.denormalize(dense(encoded, inputs, lengths)[:, block])
            lengths[:, block] = candidates[(scores + lmbda * candidates).argmin(-1)]
        return lengths

    def find_lambda(encoded: Tensor, inputs: Tensor) -> float:
        low, high = -25.0, 0.0  # of the logarithm; tokens fall as λ rises
        for _ in range(20):
            middle = (low + high) / 2
            many = choose(encoded, inputs, math.exp(middle)).float().mean().item() > MEAN_TOKENS
            low, high = (middle, high) if many else (low, middle)
        return math.exp((low + high) / 2)

    sequences: Sequences = []
    lmbda = 0.0
    for start in range(0, len(shapes), BATCH_SIZE):
        clips = torch.from_numpy(shapes[start : start + BATCH_SIZE]).to(session.device)
        encoded, z = training.encode(clips.permute(0, 4, 1, 2, 3).float() / 255, mask)
        quantized = tokenizer.quantizer(z)
        inputs = tokenizer.project_codes(quantized.codes)
        lmbda = lmbda or find_lambda(encoded, inputs)
        for ids, lengths in zip(quantized.ids.cpu(), choose(encoded, inputs, lmbda).cpu(), strict=True):
            kept = torch.cat([own[:n] for own, n in zip(ids, lengths.tolist(), strict=True)])
            sequences.append(join_blocks(kept, lengths, c.quantizer.codebook_size))
    torch.set_float32_matmul_precision("high")
    return sequences


def train_generator(session: Session, shapes: Shapes) -> None:
    """Train the generator on the tokens of drawn shapes, and write its folder."""
    options, device = session.options, session.device
    sequences = tokenize(session, shapes.wait())
    held_out = round(len(sequences) * HELD_OUT)
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

    while not optimization.finished:
        classes, entries = batch(rng.integers(held_out, len(sequences), options.generator_batch_size))
        unconditional = torch.rand(len(classes), generator=session.rng, device=device) < config.class_dropout
        with session.autocast():
            loss = generator_loss(model, torch.where(unconditional, config.classes, classes), entries)
        optimization.step(loss)
        if optimization.steps % LOG_STEPS == 0:
            session.log("generator", step=optimization.steps, loss=loss.item())
    model.load_state_dict(optimization.average)
    with torch.no_grad(), session.autocast():
        rows = [rows for rows in np.array_split(np.arange(held_out), 4) if len(rows)]
        losses = [generator_loss(model, *batch(some)).item() for some in rows]
    session.log("generator validation", loss=np.mean(losses))
    write_folder(model.eval(), options.out / "generator")
