"""Stages that learn from clips: the tokenizer and the scorer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from adaptok.config.training import TrainingConfig
from adaptok.models.feed_forward import FeedForward, Mlp
from adaptok.models.model import Model
from adaptok.models.rotary import QueryTransform
from adaptok.models.transformer import TransformerStack
from adaptok.training.adversarial import AdversarialLoss
from adaptok.training.clip_data import ClipCollate, ClipData, check_broken
from adaptok.training.initialization.initial_model import measure_targets, new_model
from adaptok.training.initialization.linear_codec import INITIALIZED_PREFIXES
from adaptok.training.objectives.perceptual import LpipsNetworks
from adaptok.training.objectives.scorer import ScorerObjective
from adaptok.training.objectives.tokenizer import TokenizerObjective
from adaptok.training.optim.optimizers import build_optimizers
from adaptok.training.reporting.model_card import CardText
from adaptok.training.reporting.samples import save_reconstructions
from adaptok.training.stages.base import Stage
from adaptok.training.stages.stream_lambdas import measure_lambdas
from adaptok.training.validation import validate_scorer, validate_tokenizer

LAMBDA_CLIPS = 24
"""Number of training clips that a scorer's table of λ is measured on."""


class ClipStage(Stage[Model]):
    """Behaviour that the tokenizer and the scorer share."""

    def __init__(self, config: TrainingConfig, data: ClipData, device: torch.device) -> None:
        self.config: TrainingConfig = config
        self.data, self.device = data, device
        self.networks = LpipsNetworks.load(config, device)

    def initial_model(self) -> Model:
        return new_model(self.config, self.data)

    def configure(self, model: Model) -> None:
        for stack in [module for module in model.modules() if isinstance(module, TransformerStack)]:
            stack.checkpointing = self.config.activation_checkpointing
            if self.config.compile:
                for module in stack.modules():
                    if isinstance(module, Mlp | FeedForward | QueryTransform | nn.LayerNorm | nn.RMSNorm):
                        module.compile()

    def optimizers(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, torch.optim.Optimizer]:
        prefixes = tuple(f"tokenizer.{name}" for name in INITIALIZED_PREFIXES)
        slow = prefixes if self.config.initialization == "linear" else ()
        return build_optimizers(self.config.optimizer, parameters, slow)

    def collate(self, batch_size: int, micro_batch_size: int) -> ClipCollate:
        return ClipCollate(self.data.train)

    def check_broken(self, broken: Mapping[str, str]) -> None:
        check_broken(broken, self.data.num_files, self.config.data.max_broken_fraction)

    def card_text(self) -> CardText:
        tokenizer = self.config.model.tokenizer
        size = f"{tokenizer.size}x{tokenizer.size}"
        return CardText(
            name=self.config.model.name,
            description=f"A {self.config.stage} for clips of {tokenizer.frames} frames of {size} pixels",
            code=("from adaptok import AdapTok", "codec = AdapTok.from_pretrained('path/to/this/folder')"),
        )


class TokenizerStage(ClipStage):
    """Training of a tokenizer: reconstruction from random numbers of tokens."""

    def objective(self, model: Model) -> TokenizerObjective:
        return TokenizerObjective(model, self.config, self.networks)

    def adversarial_loss(self) -> AdversarialLoss | None:
        if not self.config.losses.adversarial:
            return None
        return AdversarialLoss(self.config.discriminator, self.config.model.tokenizer)

    def validate(self, model: Model) -> dict[str, float]:
        clips = self.data.validation
        return {} if clips is None else validate_tokenizer(model, clips.to(self.device), self.networks)

    def score(self, measurements: Mapping[str, float]) -> float:
        """Return the sum of the PSNR at all lengths."""
        return sum(value for name, value in measurements.items() if name.startswith("validation_psnr_"))

    def save_samples(self, model: Model, stem: Path) -> None:
        if self.data.validation is not None:
            save_reconstructions(stem, model, self.data.validation.to(self.device))


class ScorerStage(ClipStage):
    """Training of a scorer: prediction of distortions, over a frozen tokenizer."""

    def initial_model(self) -> Model:
        networks = LpipsNetworks.load(self.config, torch.device("cpu"))
        return measure_targets(super().initial_model(), self.config, self.data, networks)

    def objective(self, model: Model) -> ScorerObjective:
        return ScorerObjective(model, self.config, self.networks)

    def validate(self, model: Model) -> dict[str, float]:
        clips = self.data.validation
        return {} if clips is None else validate_scorer(self.objective(model), clips.to(self.device))

    def finish(self, model: Model) -> Model:
        """Add the table of λ that streams start from."""
        assert model.config.scorer is not None
        clips = torch.stack([self.data.train[i] for i in range(LAMBDA_CLIPS)]).to(self.device)
        lambdas = measure_lambdas(model.to(self.device), clips)
        scorer = model.config.scorer.model_copy(update={"lambdas": lambdas})
        finished = Model(model.config.model_copy(update={"scorer": scorer}))
        finished.load_state_dict({name: tensor.cpu() for name, tensor in model.state_dict().items()})
        return finished.eval()
