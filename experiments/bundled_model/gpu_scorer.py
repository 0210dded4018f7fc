"""Training of the scorer on a GPU, on distortions measured by decoding.

Legend: `B` clips, `G` blocks, `K` latents, `L` candidate lengths, `D` width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from gpu_networks import TrainingTokenizer
from gpu_session import Optimization, Session
from torch import Tensor

from adaptok.checkpoints.model_folder import write_folder
from adaptok.config.optimization import OptimizerConfig
from adaptok.metrics.distortion import candidate_distortion
from adaptok.models.dense import DenseScorer
from adaptok.models.model import Model
from adaptok.models.scorer import Scorer

STATISTICS_BATCHES = 12
LOG_STEPS = 25


class Example(NamedTuple):
    """Clips whose block was decoded at all candidate lengths."""

    encoded: Tensor
    """`[B, G, K, D]`, encoder outputs."""
    inputs: Tensor
    """`[B, G, K, D]`, decoder inputs."""
    lengths: Tensor
    """int64 `[B, G]`, lengths of the blocks; K for the block that was measured."""
    distortions: Tensor
    """`[B, L]`, its distortions."""


class Distortions:
    """Measures the distortion of one block of the next training clips at every candidate length."""

    def __init__(self, session: Session) -> None:
        model = session.model
        assert model.scorer is not None
        self.session, self.tokenizer, self.step = session, model.tokenizer, model.scorer.config.length_step
        self.batch_size, self.candidates = (
            session.options.scorer_batch_size,
            model.config.tokenizer.latents // self.step,
        )
        self.training = TrainingTokenizer(self.tokenizer, self.batch_size * self.candidates, session.flex)
        self.mask = self.training.encoder_mask()
        self.encode, self.decode = session.compile(self.training.encode), session.compile(self.training.decode)
        self.clips = session.clips(self.batch_size, 72)

    @torch.no_grad()
    def measure(self, block: int) -> Example:
        """Decode `block` at every candidate length, after earlier blocks at random lengths."""
        clips, count, config = next(self.clips), self.candidates, self.tokenizer.config
        with self.session.autocast():
            encoded, z = self.encode(clips, self.mask)
            codes = self.tokenizer.quantizer(z).codes
            lengths = self.session.draw_lengths(self.batch_size, low=self.step)
            tried = lengths.repeat_interleave(count, 0)
            tried[:, block] = torch.arange(1, count + 1, device=clips.device).mul(self.step).repeat(self.batch_size)
            decoded = self.decode(codes.repeat_interleave(count, 0), self.training.decoder_mask(tried)).clamp(0, 1)
            inputs = self.tokenizer.project_codes(codes).float()
        frames = slice(block * config.temporal_patch_size, (block + 1) * config.temporal_patch_size)
        own = decoded[:, :, frames].unflatten(0, (self.batch_size, count)).float()
        lengths[:, block] = config.latents
        return Example(encoded.float(), inputs, lengths, candidate_distortion(own, clips[:, :, frames], "multiscale"))


def train_scorer(session: Session) -> None:
    """Train the scorer, and leave its averaged weights in the model of the session."""
    session.model.tokenizer.requires_grad_(False)
    distortions, blocks = Distortions(session), session.model.config.tokenizer.blocks
    logs = torch.cat([distortions.measure(i % blocks).distortions for i in range(STATISTICS_BATCHES)])
    logs = logs.clamp(min=1e-8).log()
    state, config = session.model.state_dict(), session.model.config
    assert config.scorer is not None
    values = {"mean": round(logs.mean().item(), 6), "std": round(logs.std().item(), 6), "lambdas": ()}
    scorer_config = config.scorer.model_copy(update=values)
    session.model = Model(config.model_copy(update={"scorer": scorer_config})).to(session.device)
    session.model.load_state_dict(state)
    scorer = session.model.scorer
    assert isinstance(scorer, Scorer)
    optimization = Optimization(
        session.model,
        "scorer.",
        OptimizerConfig(kind="muon", lr=1e-3, weight_decay=0.02, decay_vectors=False),
        session.options.scorer_seconds,
        0.99,
    )
    dense = DenseScorer(scorer).to(session.device)
    while not optimization.finished:
        block = optimization.steps % blocks
        example = distortions.measure(block)
        with session.autocast():
            scores = dense(example.encoded, example.inputs, example.lengths)[:, block].float()
        loss = (scores - scorer.normalize(example.distortions)).square().mean()
        optimization.step(loss)
        if optimization.steps % LOG_STEPS == 0:
            relative = (scorer.denormalize(scores.detach()) / example.distortions - 1).abs().mean()
            session.log("scorer", step=optimization.steps, loss=loss.item(), relative_error=relative)
    session.model = session.with_weights(optimization.average)
    write_folder(session.model, session.options.out / "scorer")
