"""Interface between the training loop and the stages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from adaptok.config.optimization import RunConfig
from adaptok.training.adversarial import AdversarialLoss
from adaptok.training.checkpointing import AnyModel, build_model
from adaptok.training.objectives.base import Objective
from adaptok.training.optim.optimizers import build_optimizers
from adaptok.training.reporting.model_card import CardText

ModelT = TypeVar("ModelT", bound=AnyModel)


class Stage(ABC, Generic[ModelT]):
    """Everything that differs between the stages of training. Methods with a body have the default behaviour."""

    kind = "model"
    """Kind of model, for `build_model`."""
    config: RunConfig

    @abstractmethod
    def initial_model(self) -> ModelT:
        """Create the model that a new run starts from."""

    def checkpoint_model(self, config: Mapping[str, Any]) -> ModelT:
        """Create a model for the weights of a checkpoint, from the model configuration stored there."""
        model: Any = build_model(self.kind, config)
        built: ModelT = model
        return built

    @abstractmethod
    def configure(self, model: ModelT) -> None:
        """Switch on activation checkpointing and compilation as configured."""

    @abstractmethod
    def objective(self, model: ModelT) -> Objective:
        """Create the module that computes the loss."""

    def optimizers(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, Any]:
        """Create the optimizers, by the name of their checkpoint file."""
        return build_optimizers(self.config.optimizer, parameters)

    def adversarial_loss(self) -> AdversarialLoss | None:
        """Create the adversarial loss with a new discriminator, for stages that have one."""
        return None

    @abstractmethod
    def collate(self, batch_size: int, micro_batch_size: int) -> Callable[[list[Any]], Any]:
        """Create the function that makes micro-batches of items. `batch_size` counts the items of a whole step."""

    def check_broken(self, broken: Mapping[str, str]) -> None:
        """Raise ValueError if too many files are broken."""
        return

    @abstractmethod
    def validate(self, model: ModelT) -> dict[str, float]:
        """Measure a model on the validation data. Empty if there is none."""

    def score(self, measurements: Mapping[str, float]) -> float:
        """Reduce validation results to one number for choosing the best model. Higher is better."""
        return -measurements["validation_loss"]

    def save_samples(self, model: ModelT, stem: Path) -> None:
        """Write pictures of the model's output to `stem` with the suffixes .png and .mp4."""
        return

    def finish(self, model: ModelT) -> ModelT:
        """Complete a trained model before export. Called on the main process only."""
        return model

    @abstractmethod
    def card_text(self) -> CardText:
        """Describe the model for its model card."""
