"""Stages of training: what each one trains, on which data, and what it exports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptok.allocation.policy import Scores
from adaptok.checkpoints.hub import resolve
from adaptok.checkpoints.model_folder import read_generator
from adaptok.codec.codec import AdapTok
from adaptok.config.generator import GeneratorConfig
from adaptok.config.optimization import RunConfig
from adaptok.config.training import AnyConfig, GeneratorTrainingConfig, TrainingConfig
from adaptok.models.feed_forward import FeedForward, Mlp
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.models.rotary import QueryTransform
from adaptok.models.transformer import TransformerStack
from adaptok.training.adversarial import AdversarialLoss
from adaptok.training.checkpointing import AnyModel, build_model
from adaptok.training.clip_data import ClipCollate, ClipData, check_broken, open_clip_data
from adaptok.training.fvd import find_detector, generation_fvd, reconstruction_fvd
from adaptok.training.initialization.initial_model import measure_targets, new_model
from adaptok.training.initialization.linear_codec import INITIALIZED_PREFIXES
from adaptok.training.losses import LpipsNetworks
from adaptok.training.memory import check_memory
from adaptok.training.objectives import GeneratorObjective, Objective, ScorerObjective, TokenizerObjective
from adaptok.training.optim import build_optimizers
from adaptok.training.reporting import NUM_CLIPS, load_decoder, save_generated, save_reconstructions
from adaptok.training.sequences import PackCollate
from adaptok.training.token_data import TokenData, open_token_data
from adaptok.training.validation import read_batches, validate_generator, validate_scorer, validate_tokenizer

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

    def optimizers(self, parameters: Mapping[str, nn.Parameter], layer_weights: Collection[str]) -> dict[str, Any]:
        """Create the optimizers, by the name of their checkpoint file. Arguments are as for `build_optimizers`."""
        return build_optimizers(self.config.optimizer, parameters, layer_weights=layer_weights)

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

    def measure_fvd(self, model: ModelT) -> dict[str, float]:
        """Measure the Fréchet video distance on the validation data. Empty if there is none."""
        return {}

    def score(self, measurements: Mapping[str, float]) -> float:
        """Reduce validation results to one number for choosing the best model. Higher is better."""
        return -measurements["validation_loss"]

    def save_samples(self, model: ModelT, stem: Path) -> Path | None:
        """Write pictures of the model's output to `stem` with the suffixes .png and .mp4. Returns the picture."""
        return None

    def finish(self, model: ModelT) -> ModelT:
        """Complete a trained model before export. Called on the main process only."""
        return model


NUM_LAMBDAS = 12
"""Values of λ that are tried."""


def measure_lambdas(model: Model, clips: Tensor, batch_size: int = 4) -> tuple[tuple[float, float], ...]:
    """Measure how many tokens a block uses on average at several λ. Lengths are chosen block after block.

    Args:
        model: model with a scorer.
        clips: `[N, C, T, S, S]` in [0, 1].
        batch_size: clips encoded at once.

    Returns:
        Pairs (tokens, λ), with rising tokens and falling λ.
    """
    codec = AdapTok(model, "")
    batches = [codec.encode_clips(batch) for batch in clips.split(batch_size)]
    lengths = np.arange(codec.length_step, model.config.tokenizer.latents + 1, codec.length_step)
    scores = [codec.allocation_scores(batch).flatten(0, 1).cpu().numpy() for batch in batches]
    savings = -np.diff(np.concatenate(scores), axis=1) / codec.length_step
    savings = savings[savings > 0]
    if not len(savings):
        return ()
    table: list[tuple[float, float]] = []
    for lmbda in np.quantile(savings, np.linspace(0.98, 0.02, NUM_LAMBDAS)).tolist():

        def choose(scores: Scores, block: int, lmbda: float = lmbda) -> NDArray[np.int64]:
            best: NDArray[np.int64] = lengths[(scores + lmbda * lengths).argmin(1)]
            return best

        tokens = float(np.concatenate([codec.choose_lengths(batch, choose)[0] for batch in batches]).mean())
        if not table or (tokens > table[-1][0] and lmbda < table[-1][1]):
            table.append((round(tokens, 2), float(f"{lmbda:.4g}")))
    return tuple(table)


LAMBDA_CLIPS = 24
"""Number of training clips that a scorer's table of λ is measured on."""


def add_lambdas(model: Model, clips: Tensor) -> Model:
    """Return a model on the CPU whose scorer has the table of λ that streams start from; see `measure_lambdas`."""
    assert model.config.scorer is not None
    scorer = model.config.scorer.model_copy(update={"lambdas": measure_lambdas(model, clips)})
    finished = Model(model.config.model_copy(update={"scorer": scorer}))
    finished.load_state_dict({name: tensor.cpu() for name, tensor in model.state_dict().items()})
    return finished.eval()


class ClipStage(Stage[Model]):
    """Behaviour that the tokenizer and the scorer share."""

    def __init__(self, config: TrainingConfig, data: ClipData, device: torch.device) -> None:
        self.config: TrainingConfig = config
        self.data, self.device = data, device
        self.networks = LpipsNetworks.load(config, device)
        self.detector = find_detector(config, device)

    def initial_model(self) -> Model:
        return new_model(self.config, self.data)

    def configure(self, model: Model) -> None:
        for stack in [module for module in model.modules() if isinstance(module, TransformerStack)]:
            stack.checkpointing = self.config.activation_checkpointing
            if self.config.compile:
                for module in stack.modules():
                    if isinstance(module, Mlp | FeedForward | QueryTransform | nn.LayerNorm | nn.RMSNorm):
                        module.compile()

    def optimizers(self, parameters: Mapping[str, nn.Parameter], layer_weights: Collection[str]) -> dict[str, Any]:
        prefixes = tuple(f"tokenizer.{name}" for name in INITIALIZED_PREFIXES)
        slow = prefixes if self.config.initialization == "linear" else ()
        return build_optimizers(self.config.optimizer, parameters, slow, layer_weights)

    def collate(self, batch_size: int, micro_batch_size: int) -> ClipCollate:
        return ClipCollate(self.data.train)

    def check_broken(self, broken: Mapping[str, str]) -> None:
        check_broken(broken, self.data.num_files, self.config.data.max_broken_fraction)


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
        return {} if clips is None else validate_tokenizer(model, clips, self.networks)

    def measure_fvd(self, model: Model) -> dict[str, float]:
        clips = self.data.validation
        if self.detector is None or clips is None:
            return {}
        return reconstruction_fvd(self.detector, model, clips)

    def score(self, measurements: Mapping[str, float]) -> float:
        """Return the sum of the PSNR at all lengths."""
        return sum(value for name, value in measurements.items() if name.startswith("validation_psnr_"))

    def save_samples(self, model: Model, stem: Path) -> Path | None:
        if self.data.validation is None:
            return None
        return save_reconstructions(stem, model, next(read_batches(self.data.validation, self.device, NUM_CLIPS)))


class ScorerStage(ClipStage):
    """Training of a scorer: prediction of distortions, over a frozen tokenizer."""

    def initial_model(self) -> Model:
        return measure_targets(super().initial_model(), self.config, self.data, self.networks, self.device)

    def objective(self, model: Model) -> ScorerObjective:
        return ScorerObjective(model, self.config, self.networks)

    def validate(self, model: Model) -> dict[str, float]:
        clips = self.data.validation
        return {} if clips is None else validate_scorer(self.objective(model), clips)

    def finish(self, model: Model) -> Model:
        """Add the table of λ."""
        clips = torch.stack([self.data.train[i] for i in range(LAMBDA_CLIPS)]).to(self.device)
        return add_lambdas(model.to(self.device), clips)


class GeneratorStage(Stage[GeneratorModel]):
    """Prediction of each id from the condition and the ids before it."""

    kind = "generator"

    def __init__(self, config: GeneratorTrainingConfig, data: TokenData, device: torch.device) -> None:
        self.config: GeneratorTrainingConfig = config
        self.data, self.device = data, device
        self.detector = find_detector(config, device)
        decodes = config.samples or self.detector is not None
        self.decoder = load_decoder(config.tokenizer, data.config, device) if decodes else None

    def initial_model(self) -> GeneratorModel:
        torch.manual_seed(self.config.seed)
        model = GeneratorModel(self.data.config)
        if self.config.initial is not None:
            model.load_state_dict(load_initial_generator(self.config.initial, self.data.config).state_dict())
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

    def measure_fvd(self, model: GeneratorModel) -> dict[str, float]:
        sequences = self.data.validation
        if self.detector is None or self.decoder is None or sequences is None:
            return {}
        return generation_fvd(self.detector, model, self.decoder, sequences)

    def save_samples(self, model: GeneratorModel, stem: Path) -> Path | None:
        if self.decoder is None or not self.config.samples:
            return None
        return save_generated(stem, model, self.decoder, self.data.examples, self.data.train.labels)


def load_initial_generator(name: str, config: GeneratorConfig) -> GeneratorModel:
    """Load the generator that a run starts from.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: its architecture differs from `config`.
    """
    source = read_generator(resolve(name))
    if _architecture(source.config) != _architecture(config):
        raise ValueError(
            f"the generator in {name} has another architecture than this run; give the same model.* values or leave"
            " initial out"
        )
    return source


def check_generator(config: GeneratorTrainingConfig, data: TokenData) -> None:
    """Check that the initial generator and the tokenizer of samples fit the token dataset, by loading them. Errors are
    those of `load_initial_generator` and `load_decoder`."""
    if config.initial is not None:
        load_initial_generator(config.initial, data.config)
    if config.samples:
        load_decoder(config.tokenizer, data.config, torch.device("cpu"))


_NOT_ARCHITECTURE = {"name", "model", "model_hash", "dropout", "token_dropout", "class_dropout", "condition_frames"}


def _architecture(config: GeneratorConfig) -> dict[str, Any]:
    """Return the settings that must agree for weights to be reused.

    The tokenizer may differ, for example be a newer version with the same codebook.
    """
    return config.model_dump(exclude=_NOT_ARCHITECTURE)


AnyData = ClipData | TokenData


def build_stage(config: AnyConfig, data: AnyData, device: torch.device) -> Stage[Any]:
    """Create the stage that a configuration names.

    Raises:
        ValueError: the model cannot fit into the memory of the machine, or does not fit its data.
    """
    check_memory(config.model)
    if isinstance(config, GeneratorTrainingConfig):
        assert isinstance(data, TokenData)
        return GeneratorStage(config, data, device)
    assert isinstance(data, ClipData)
    return {"tokenizer": TokenizerStage, "scorer": ScorerStage}[config.stage](config, data, device)


def open_stage_data(config: AnyConfig, advance: Callable[[int], None] | None = None) -> AnyData:
    """Open the training data of a configuration.

    Args:
        config: configuration of the run.
        advance: called with the number of files just opened.

    Raises:
        FileNotFoundError: a folder, list or dataset does not exist.
        ValueError: the data is empty, does not fit the configuration, or has too many broken files.
    """
    return open_token_data(config) if isinstance(config, GeneratorTrainingConfig) else open_clip_data(config, advance)
