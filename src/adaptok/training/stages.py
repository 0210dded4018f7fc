"""What each stage of training is: its data, its first model, what it minimises, and what it leaves behind.

The loop (`loop.Run`) has steps, precision, averages, checkpoints and processes, and asks a `Stage` for the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import nn

from adaptok.checkpoints.model_folder import read_generator
from adaptok.config.generator import GeneratorConfig
from adaptok.config.optimization import RunConfig
from adaptok.config.training import AnyConfig, GeneratorTrainingConfig, TrainingConfig
from adaptok.models.feed_forward import FeedForward, Mlp
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.models.rotary import QueryTransform
from adaptok.models.transformer import TransformerStack
from adaptok.training import checkpoint
from adaptok.training.data import Collate, Data, check_broken, open_data
from adaptok.training.generator_objective import GeneratorObjective, validate_generator
from adaptok.training.initialization.initial_model import measure_targets, new_model
from adaptok.training.initialization.linear_start import WRITTEN
from adaptok.training.losses import Adversary
from adaptok.training.objectives import Measures, ScorerObjective, TokenizerObjective
from adaptok.training.optimizers import build_optimizers
from adaptok.training.reporting import About, save_samples, write_card
from adaptok.training.samples import load_decoder, save_generated
from adaptok.training.stream_lambdas import measure_lambdas
from adaptok.training.token_data import PackRows, TokenData, open_token_data
from adaptok.training.validation import validate_scorer, validate_tokenizer

PRICE_CLIPS = 24
"""Training clips that a scorer's table of λ is measured on."""

AnyData = Data | TokenData
ModelT = TypeVar("ModelT", bound=nn.Module)


class Objective(Protocol):
    """A module: a batch in, an `Outcome` out."""

    def trained(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Named parameters that the stage changes."""


class Critic(NamedTuple):
    """An adversary, and the step from which it counts."""

    adversary: Adversary
    start: int


class Stage(ABC, Generic[ModelT]):
    """One stage. Where a method has a body here, that is what most stages do."""

    kind = "model"
    """Of model, for `checkpoint.build`."""
    config: RunConfig

    @abstractmethod
    def start(self) -> ModelT:
        """The model that a run starts from."""

    def again(self, values: Mapping[str, Any]) -> ModelT:
        """A model for the weights of a checkpoint, from the configuration that it keeps."""
        model: Any = checkpoint.build(self.kind, values)
        built: ModelT = model
        return built

    @abstractmethod
    def prepare(self, model: ModelT) -> None:
        """Set how layers compute."""

    @abstractmethod
    def objective(self, model: ModelT) -> Any:
        """What is minimised: a module that is an `Objective`."""

    def optimizers(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, torch.optim.Optimizer]:
        """Optimizers by name."""
        return build_optimizers(self.config.optimizer, parameters)

    def critic(self) -> Critic | None:
        """An adversary, with random weights, where the stage has one."""
        return None

    @abstractmethod
    def collate(self, per_step: int) -> Callable[[list[Any]], Any]:
        """Makes batches of what the data gives; `per_step` is how many that are in a step of all processes."""

    def check_broken(self, broken: Mapping[str, str]) -> None:
        """Raise ValueError where too many files are broken."""
        return

    @abstractmethod
    def figures(self, model: ModelT) -> dict[str, float]:
        """How good a model is on the validation clips; nothing where there are none."""

    def value(self, figures: Mapping[str, float]) -> float:
        """One number of them, the higher the better."""
        return -figures["validation_loss"]

    def draw(self, model: ModelT, stem: Path) -> None:
        """Write pictures of what a model makes, to `STEM.png` and others."""
        return

    def finish(self, model: ModelT) -> ModelT:
        """What a trained model still needs, on the main process."""
        return model

    @abstractmethod
    def about(self) -> About:
        """What the model's card says."""

    def write_card(self, folder: Path, steps: int, batch_size: int) -> None:
        """The card of `FOLDER/model`."""
        config: Any = self.config
        write_card(folder / "model" / "README.md", self.about(), config, folder / "metrics.jsonl", steps, batch_size)


class ClipStage(Stage[Model]):
    """What the stages that learn from clips share."""

    def __init__(self, config: TrainingConfig, data: Data, device: torch.device) -> None:
        self.config: TrainingConfig = config
        self.data, self.device = data, device
        self.measures = Measures.load(config, device)

    def start(self) -> Model:
        return new_model(self.config, self.data)

    def prepare(self, model: Model) -> None:
        for stack in [module for module in model.modules() if isinstance(module, TransformerStack)]:
            stack.checkpointing = self.config.activation_checkpointing
            if self.config.compile:
                for part in stack.modules():
                    if isinstance(part, Mlp | FeedForward | QueryTransform | nn.LayerNorm | nn.RMSNorm):
                        part.compile()

    def optimizers(self, parameters: Mapping[str, nn.Parameter]) -> dict[str, torch.optim.Optimizer]:
        written = tuple(f"tokenizer.{name}" for name in WRITTEN) if self.config.initialization == "linear" else ()
        return build_optimizers(self.config.optimizer, parameters, written)

    def collate(self, per_step: int) -> Collate:
        return Collate(self.data.train)

    def check_broken(self, broken: Mapping[str, str]) -> None:
        check_broken(broken, self.data.listed, self.config.data.max_broken_fraction)

    def about(self) -> About:
        tokenizer = self.config.model.tokenizer
        text = (
            f"A {self.config.stage} for clips of {tokenizer.frames} frames of {tokenizer.size}x{tokenizer.size} pixels"
        )
        code = ("from adaptok import AdapTok", "codec = AdapTok.from_pretrained('path/to/this/folder')")
        return About(self.config.model.name, text, code)


class TokenizerStage(ClipStage):
    """Reconstruction from rows of random lengths."""

    def objective(self, model: Model) -> TokenizerObjective:
        return TokenizerObjective(model, self.config, self.measures)

    def critic(self) -> Critic | None:
        losses = self.config.losses
        if not losses.adversarial:
            return None
        adversary = Adversary(self.config.discriminator, self.config.model.tokenizer)
        return Critic(adversary, losses.start_steps.get("adversarial", 0))

    @torch.inference_mode()
    def figures(self, model: Model) -> dict[str, float]:
        """PSNR at several lengths, edge ratio, sharpness, and LPIPS if it is part of the loss."""
        clips = self.data.validation
        return {} if clips is None else validate_tokenizer(model, clips.to(self.device), self.measures)

    def value(self, figures: Mapping[str, float]) -> float:
        """Sum of the PSNR at all lengths."""
        return sum(value for name, value in figures.items() if name.startswith("validation_psnr_"))

    def draw(self, model: Model, stem: Path) -> None:
        if self.data.validation is not None:
            save_samples(stem, model, self.data.validation.to(self.device))


class ScorerStage(ClipStage):
    """Prediction of distortions, over a frozen tokenizer."""

    def start(self) -> Model:
        model = super().start()
        return measure_targets(model, self.config, self.data, Measures.load(self.config, torch.device("cpu")))

    def objective(self, model: Model) -> ScorerObjective:
        return ScorerObjective(model, self.config, self.measures)

    @torch.inference_mode()
    def figures(self, model: Model) -> dict[str, float]:
        clips = self.data.validation
        return {} if clips is None else validate_scorer(self.objective(model), clips.to(self.device))

    def finish(self, model: Model) -> Model:
        """The same model with a table of λ."""
        assert model.config.scorer is not None
        clips = torch.stack([self.data.train[i] for i in range(PRICE_CLIPS)]).to(self.device)
        lambdas = measure_lambdas(model.to(self.device), clips)
        scorer = model.config.scorer.model_copy(update={"lambdas": lambdas})
        priced = Model(model.config.model_copy(update={"scorer": scorer}))
        priced.load_state_dict({name: tensor.cpu() for name, tensor in model.state_dict().items()})
        return priced.eval()


class GeneratorStage(Stage[GeneratorModel]):
    """Prediction of ids from a class or first frames and the ids before."""

    kind = "generator"

    def __init__(self, config: GeneratorTrainingConfig, data: TokenData, device: torch.device) -> None:
        self.config: GeneratorTrainingConfig = config
        self.data, self.device = data, device
        self.decoder = load_decoder(config.tokenizer, data.config, device) if config.samples else None

    def start(self) -> GeneratorModel:
        torch.manual_seed(self.config.seed)
        model = GeneratorModel(self.data.config)
        if self.config.initial is not None:
            source = read_generator(self.config.initial)
            trained = self._settings(source.config)
            if trained != self._settings(model.config):
                raise ValueError(f"the generator in {self.config.initial} has another configuration than this run")
            model.load_state_dict(source.state_dict())
        return model

    @staticmethod
    def _settings(config: GeneratorConfig) -> dict[str, Any]:
        """Settings that must agree for the weights to be reused. The tokenizer may differ, for example a newer version
        of the same one."""
        return config.model_dump(exclude={"name", "model", "model_hash", "dropout", "token_dropout", "class_dropout"})

    def again(self, values: Mapping[str, Any]) -> GeneratorModel:
        model = super().again(values)
        if model.config != self.data.config:
            raise ValueError(
                "the token dataset is not the one that the run began with: its generator was of the model"
                f" {model.config.model} with {model.config.classes} classes and {model.config.condition_ids} ids as"
                " the condition; give the same data, or choose another folder"
            )
        return model

    def prepare(self, model: GeneratorModel) -> None:
        model.checkpointing = self.config.activation_checkpointing
        if self.config.compile:
            for part in model.modules():
                if isinstance(part, FeedForward | nn.RMSNorm):
                    part.compile()

    def objective(self, model: GeneratorModel) -> GeneratorObjective:
        return GeneratorObjective(model)

    def collate(self, per_step: int) -> PackRows:
        return PackRows(self.data.train, per_step, self.config.pass_size)

    def figures(self, model: GeneratorModel) -> dict[str, float]:
        """Loss, bits and accuracy on clips of other videos."""
        rows = self.data.validation
        return {} if rows is None else validate_generator(model, rows, self.config.pass_size)

    def draw(self, model: GeneratorModel, stem: Path) -> None:
        """Clips that are generated under the conditions of some of the data, beside these."""
        if self.decoder is not None:
            save_generated(stem, model, self.decoder, self.data.examples, self.data.train.labels)

    def about(self) -> About:
        c = self.data.config
        given = f"one of {c.classes} classes" if c.classes else "the first frames"
        text = f"A generator of the ids of clips of the tokenizer {c.model}, from {given}"
        code = ("from adaptok import Generator", "generator = Generator.from_pretrained('path/to/this/folder')")
        return About(c.name, text, code)


def build_stage(config: AnyConfig, data: AnyData, device: torch.device) -> Stage[Any]:
    """The stage of a configuration."""
    if isinstance(config, GeneratorTrainingConfig):
        assert isinstance(data, TokenData)
        return GeneratorStage(config, data, device)
    assert isinstance(data, Data)
    return {"tokenizer": TokenizerStage, "scorer": ScorerStage}[config.stage](config, data, device)


def open_stage_data(config: AnyConfig, advance: Callable[[int], None] | None = None) -> AnyData:
    """What a configuration names to train on.

    Args:
        advance: called with the number of files just opened.

    Raises:
        FileNotFoundError: a folder or list does not exist.
        ValueError: there is nothing that can be read, it does not fit, or too much of it is broken.
    """
    return open_token_data(config) if isinstance(config, GeneratorTrainingConfig) else open_data(config, advance)
