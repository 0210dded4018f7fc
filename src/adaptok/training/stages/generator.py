"""Stage that trains a generator on token datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptok.checkpoints.model_folder import read_generator
from adaptok.config.generator import GeneratorConfig
from adaptok.config.training import GeneratorTrainingConfig
from adaptok.models.feed_forward import FeedForward
from adaptok.models.generator import GeneratorModel
from adaptok.training.objectives.generator import GeneratorObjective
from adaptok.training.reporting.generated_samples import load_decoder, save_generated
from adaptok.training.reporting.model_card import CardText
from adaptok.training.sequences import PackCollate
from adaptok.training.stages.base import Stage
from adaptok.training.token_data import TokenData
from adaptok.training.validation import validate_generator


class GeneratorStage(Stage[GeneratorModel]):
    """Prediction of each id from the condition and the ids before it."""

    kind = "generator"

    def __init__(self, config: GeneratorTrainingConfig, data: TokenData, device: torch.device) -> None:
        self.config: GeneratorTrainingConfig = config
        self.data, self.device = data, device
        self.decoder = load_decoder(config.tokenizer, data.config, device) if config.samples else None

    def initial_model(self) -> GeneratorModel:
        torch.manual_seed(self.config.seed)
        model = GeneratorModel(self.data.config)
        if self.config.initial is not None:
            source = read_generator(self.config.initial)
            if _architecture(source.config) != _architecture(model.config):
                raise ValueError(
                    f"the generator in {self.config.initial} has another architecture than this run; give the same"
                    " model.* values or leave initial out"
                )
            model.load_state_dict(source.state_dict())
        return model

    def checkpoint_model(self, config: Mapping[str, Any]) -> GeneratorModel:
        model = super().checkpoint_model(config)
        if model.config != self.data.config:
            raise ValueError(
                "the token dataset differs from the one that the run began with, whose ids are of the model"
                f" {model.config.model}, with {model.config.classes} classes and {model.config.condition_ids} condition"
                " ids; give the same data, or choose another folder"
            )
        return model

    def configure(self, model: GeneratorModel) -> None:
        model.checkpointing = self.config.activation_checkpointing
        if self.config.compile:
            for module in model.modules():
                if isinstance(module, FeedForward | nn.RMSNorm):
                    module.compile()

    def objective(self, model: GeneratorModel) -> GeneratorObjective:
        return GeneratorObjective(model)

    def collate(self, batch_size: int, micro_batch_size: int) -> PackCollate:
        return PackCollate(self.data.train, batch_size, micro_batch_size)

    def validate(self, model: GeneratorModel) -> dict[str, float]:
        sequences = self.data.validation
        return {} if sequences is None else validate_generator(model, sequences, self.config.pass_size)

    def save_samples(self, model: GeneratorModel, stem: Path) -> None:
        if self.decoder is not None:
            save_generated(stem, model, self.decoder, self.data.examples, self.data.train.labels)

    def card_text(self) -> CardText:
        config = self.data.config
        condition = f"one of {config.classes} classes" if config.classes else "the first frames"
        return CardText(
            name=config.name,
            description=f"A generator of the ids of clips of the tokenizer {config.model}, from {condition}",
            code=("from adaptok import Generator", "generator = Generator.from_pretrained('path/to/this/folder')"),
        )


def _architecture(config: GeneratorConfig) -> dict[str, Any]:
    """Return the settings that must agree for weights to be reused.

    The tokenizer may differ, for example be a newer version with the same codebook.
    """
    return config.model_dump(exclude={"name", "model", "model_hash", "dropout", "token_dropout", "class_dropout"})
