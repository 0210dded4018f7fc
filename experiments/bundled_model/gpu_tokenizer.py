"""Training of the tokenizer on a GPU, with LPIPS from the first step."""

from __future__ import annotations

import torch
from gpu_clips import FRAMES, SIZE
from gpu_networks import TrainingTokenizer, lpips_on_crops
from gpu_session import Optimization, Session
from torch import Tensor

from adaptok.checkpoints.model_folder import write_folder
from adaptok.config.optimization import OptimizerConfig
from adaptok.data.clips import FirstClips
from adaptok.metrics.lpips import Lpips
from adaptok.training.initialization.linear_codec import INITIALIZED_PREFIXES
from adaptok.training.losses import LpipsNetworks, border_loss
from adaptok.training.validation import validate_tokenizer

WEIGHTS = {"l1": 1.0, "mse": 3.0, "borders": 0.5, "lpips": 0.15, "lpips_alex": 0.08}
"""Weights of the losses."""
VGG_CROPS, CROP, ALEX_FRAMES = 2, 64, 2
"""LPIPS (VGG) compares crops of this side from random frames of a clip; LPIPS (AlexNet) whole random frames."""
EMA_DECAY = 0.999
EXPORT_SECONDS = 240
LOG_STEPS = 50


def train_tokenizer(session: Session) -> None:
    """Train encoder and decoder, and leave the averaged weights in the model of the session."""
    options = session.options
    validation = FirstClips(str(options.data / "videos" / "val"), frames=FRAMES, size=SIZE)
    losses = ReconstructionLosses(session)
    optimization = Optimization(
        session.model,
        "tokenizer.",
        OptimizerConfig(kind="muon", lr=options.lr, weight_decay=0.02, linear_lr_multiplier=0.3, decay_vectors=False),
        options.tokenizer_seconds,
        EMA_DECAY,
        tuple(f"tokenizer.{name}" for name in INITIALIZED_PREFIXES),
    )
    training = TrainingTokenizer(session.model.tokenizer, options.batch_size, session.flex)
    encoder_mask, reconstruct = training.encoder_mask(), session.compile(training.reconstruct)
    logged, exported = 0, 0.0
    for clips in session.clips(options.batch_size, 71):
        with session.autocast():
            decoder_mask = training.decoder_mask(session.draw_lengths(len(clips)))
            terms = losses(reconstruct(clips, encoder_mask, decoder_mask), clips)
            loss = sum((WEIGHTS[name] * term for name, term in terms.items()), clips.new_zeros(()))
        norm = optimization.step(loss)
        if optimization.steps % LOG_STEPS == 0:
            figures = {name: term.item() for name, term in terms.items()}
            speed = (optimization.steps - logged) * len(clips) / optimization.lap()
            session.log("tokenizer", step=optimization.steps, norm=norm, clips_per_second=speed, **figures)
            logged = optimization.steps
        if optimization.finished or optimization.elapsed - exported > EXPORT_SECONDS:
            model, exported = session.with_weights(optimization.average), optimization.elapsed
            write_folder(model, options.out / "tokenizer")
            measured = validate_tokenizer(model, validation, losses.networks)
            session.log("validation", **{name.removeprefix("validation_"): value for name, value in measured.items()})
        if optimization.finished:
            break
    session.model = session.with_weights(optimization.average)


class ReconstructionLosses:
    """Terms of the loss by name: pixel errors, patch borders and LPIPS of random frames."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.vgg, self.alex = (self._load(name) for name in ("vgg", "alex"))
        self.networks = LpipsNetworks(self.vgg, self.alex)
        self.patch = session.model.config.tokenizer.patch_size
        self.terms = session.compile(self._terms)

    def _load(self, name: str) -> Lpips:
        network = Lpips.from_file(self.session.options.lpips / f"lpips_{name}.safetensors", name)  # type: ignore[arg-type]
        return network.to(self.session.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, prediction: Tensor, clips: Tensor) -> dict[str, Tensor]:
        device = clips.device
        room = torch.tensor([FRAMES, SIZE - CROP + 1, SIZE - CROP + 1], device=device)
        shape = (VGG_CROPS + ALEX_FRAMES, len(clips), 3)
        corners = (torch.rand(shape, generator=self.session.rng, device=device) * room).long()
        whole = torch.tensor([1, 0, 0], device=device)
        terms: dict[str, Tensor] = self.terms(prediction, clips, corners[:VGG_CROPS], corners[VGG_CROPS:] * whole)
        return terms

    def _terms(self, prediction: Tensor, clips: Tensor, vgg_crops: Tensor, alex_crops: Tensor) -> dict[str, Tensor]:
        error = prediction - clips
        return {
            "l1": error.abs().mean(),
            "mse": error.square().mean(),
            "borders": border_loss(prediction, clips, self.patch),
            "lpips": lpips_on_crops(self.vgg, prediction, clips, vgg_crops, CROP),
            "lpips_alex": lpips_on_crops(self.alex, prediction, clips, alex_crops, SIZE),
        }
