"""Configuration of training runs, one class for each kind of stage, and the presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any, Literal, overload

import yaml
from pydantic import AliasChoices, Field, model_validator

from adaptok.config.base import Count, Depth, Fraction01, read_yaml
from adaptok.config.data import DataConfig, TokenDataConfig
from adaptok.config.discriminator import DiscriminatorConfig, PatchDiscriminatorConfig, TransformerDiscriminatorConfig
from adaptok.config.lengths import LengthDistribution
from adaptok.config.losses import RECONSTRUCTION_TERMS, TokenizerLossConfig
from adaptok.config.model import ModelConfig
from adaptok.config.optimization import RunConfig, RunT
from adaptok.config.overrides import ConfigField, list_fields, parse_value, resolve_key, set_fields
from adaptok.config.transformer import TransformerConfig

Stage = Literal["tokenizer", "scorer", "generator"]


class TrainingConfig(RunConfig):
    """Configuration of a run that trains a tokenizer or a scorer on clips."""

    stage: Literal["tokenizer", "scorer"]
    """Part of the model that is trained."""
    model: ModelConfig
    """Architecture of the model."""
    initialization: Annotated[
        Literal["random", "linear"], Field(validation_alias=AliasChoices("initialization", "start"))
    ] = "random"
    """Initialization of a new tokenizer. 'linear' turns it into a progressive linear codec before the first step. With
    `initial`, it says how that tokenizer was initialized, because such weights have a learning rate of their own."""
    initial: str | None = None
    """Model folder whose weights the run starts from. A scorer run takes its tokenizer from here."""
    fit_output_clips: Annotated[int, Field(ge=0)] = 0
    """Number of training clips on which the output layer is fitted by least squares before the first step. A few
    hundred suffice for overlapping windows. 0 disables the fit."""
    data: DataConfig = DataConfig()
    """Videos and photographs that training clips are cut from."""
    lengths: LengthDistribution
    """Distribution of the lengths of blocks. A scorer run draws the lengths of the blocks before the scored one, and
    for the target "cumulative" also of those after it."""
    scored_candidates: Count | None = None
    """Number of candidate lengths that a scorer run draws and measures for each clip. Null measures all of them."""
    level_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of the squared mean error of a curve of scores in the loss of a scorer run. The squared deviations from
    that mean have weight 1. 1 gives the mean squared error of the scores; a smaller value favors the shape of curves,
    which allocation depends on, over their level."""
    losses: TokenizerLossConfig = TokenizerLossConfig()
    """Weights of the terms of the tokenizer's loss."""
    lpips_weights: str | None = None
    """VGG16 weights for LPIPS: torchvision's vgg16-397923af.pth, or the same tensors as safetensors."""
    lpips_alex_weights: str | None = None
    """AlexNet weights for LPIPS: torchvision's alexnet-owt-7be5be79.pth, or the same tensors as safetensors."""
    trainable: tuple[Literal["encoder", "decoder"], ...] = ("encoder", "decoder")
    """Parts of the tokenizer that a tokenizer run trains. "encoder" is everything up to the token ids, "decoder"
    everything after them: if only the decoder is trained, existing tokens stay valid."""
    discriminator: DiscriminatorConfig = TransformerDiscriminatorConfig()
    """Discriminator of the adversarial loss."""

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if self.stage == "scorer" and self.model.scorer is None:
            raise ValueError("model.scorer is null, but a scorer run needs a scorer; give its sizes in model.scorer")
        if self.data.weights and len(self.data.weights) != len(self.data.train):
            raise ValueError(
                f"data.weights has {len(self.data.weights)} values for {len(self.data.train)} entries of data.train;"
                " give one for each"
            )
        if self.lengths.max > self.model.tokenizer.latents:
            raise ValueError(
                f"lengths.max {self.lengths.max} is above the {self.model.tokenizer.latents} latents of a block"
                " (model.tokenizer.latents); lower it"
            )
        if self.fit_output_clips and (self.stage != "tokenizer" or "decoder" not in self.trainable):
            raise ValueError(
                f"fit_output_clips {self.fit_output_clips} changes the decoder, which this run does not train;"
                " set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _check_losses(self) -> TrainingConfig:
        if self.discriminator.adaptive and not any(self.losses.full_weight(name) for name in RECONSTRUCTION_TERMS):
            raise ValueError(
                "discriminator.adaptive weighs the adversarial loss against the reconstruction losses, but all their"
                f" weights are 0; give one of losses.{', losses.'.join(RECONSTRUCTION_TERMS)}"
            )
        if self.discriminator.adaptive and self.precision == "float16":
            raise ValueError(
                "discriminator.adaptive compares gradients that are too small for float16; set precision to bfloat16 or"
                " float32"
            )
        if self.losses.borders and self.model.tokenizer.grid < 2:
            raise ValueError(
                f"losses.borders {self.losses.borders:g} needs more than one patch along a side, but patch_size is"
                " size; set losses.borders to 0"
            )
        discriminator, size = self.discriminator, self.model.tokenizer.size
        if isinstance(discriminator, PatchDiscriminatorConfig) and size >> discriminator.layers < 2:
            raise ValueError(
                f"discriminator.layers {discriminator.layers} leave less than 2 x 2 patches of clips of {size} pixels,"
                f" expected at most {size.bit_length() - 2}"
            )
        return self


class PartialGeneratorConfig(TransformerConfig):
    """Architecture of a generator. Fields that are null follow from the token dataset."""

    name: str = "adaptok-generator"
    """Name of the model."""
    condition: Literal["class", "frames"] | None = None
    """What the generator is conditioned on. By default, frames if the clips of the dataset have them, otherwise the
    class."""
    mixture: Depth = 1
    """Number of products of independent digits in the mixture that predicts an id. Needs `levels`."""
    dropout: Fraction01 = 0.1
    """Dropout probability of the outputs of attention and MLP."""
    token_dropout: Fraction01 = 0.1
    """Dropout probability of the embedded sequence, before positions are added."""
    class_dropout: Fraction01 = 0.1
    """Fraction of class labels that are dropped in training, for classifier-free guidance."""
    levels: tuple[Annotated[int, Field(ge=2)], ...] | None = None
    """Levels of the scalar quantizer, to embed and predict ids by their digits. Empty for one embedding per id."""
    codebook_size: Count | None = None
    """Number of ids of the tokenizer."""
    blocks: Count | None = None
    """Number of blocks that are generated."""
    latents: Count | None = None
    """K, the maximum number of ids in a block."""
    classes: Annotated[int, Field(ge=0)] | None = None
    """Number of classes of the condition, or 0 if the condition consists of ids of the first frames."""
    condition_ids: Annotated[int, Field(ge=0)] | None = None
    """Number of ids of the first frames in the condition, or 0 if the condition is a class."""
    first_block: Annotated[int, Field(ge=0)] | None = None
    """Index of the first block that is generated."""
    model: str | None = None
    """Name of the tokenizer that the ids come from."""
    model_hash: str | None = None
    """Hash of the weights of that tokenizer."""


class GeneratorTrainingConfig(RunConfig):
    """Configuration of a run that trains a generator on token datasets."""

    stage: Literal["generator"]
    """Part of the model that is trained."""
    model: PartialGeneratorConfig
    """Architecture of the generator."""
    initial: str | None = None
    """Generator folder whose weights the run starts from."""
    data: TokenDataConfig = TokenDataConfig()
    """Token datasets that the generator is trained on."""
    tokenizer: str | None = None
    """Model folder or hub id of the tokenizer that decodes samples. By default, the bundled model if the ids are its
    own."""
    samples: Annotated[int, Field(ge=0)] = 6
    """Number of clips generated at each validation."""


AnyConfig = TrainingConfig | GeneratorTrainingConfig
STAGES: dict[str, type[TrainingConfig] | type[GeneratorTrainingConfig]] = {
    "tokenizer": TrainingConfig,
    "scorer": TrainingConfig,
    "generator": GeneratorTrainingConfig,
}


@overload
def load_config(name: str, stage: Literal["tokenizer", "scorer"]) -> TrainingConfig: ...
@overload
def load_config(name: str, stage: Literal["generator"]) -> GeneratorTrainingConfig: ...
@overload
def load_config(name: str, stage: str) -> AnyConfig: ...
def load_config(name: str, stage: str) -> AnyConfig:
    """Load a configuration from a YAML file, or a preset ("tiny", "small", "base") of a stage by name.

    Raises:
        FileNotFoundError: there is no such file or preset.
        ValueError: the file is not a valid configuration, or is one of another stage.
    """
    if Path(name).suffix in (".yaml", ".yml", ".json"):
        return _load(Path(name), stage)
    for file in (f"{name}-{stage}.yaml", f"{name}.yaml"):
        with as_file(files("adaptok") / "config" / "presets" / file) as path:
            if path.is_file():
                return _load(path, stage)
    raise FileNotFoundError(f"{name}: no such preset; expected a YAML file or one of {', '.join(preset_names(stage))}")


def preset_names(stage: str) -> list[str]:
    """List the presets of a stage, without the suffix that names the stage."""
    names = [Path(file.name).stem for file in (files("adaptok") / "config" / "presets").iterdir()]
    suffixes = (f"-{stage}", "-predictor") if stage == "generator" else (f"-{stage}",)
    return sorted(name.removesuffix(f"-{stage}") for name in names if name.endswith(suffixes))


def _load(path: Path, stage: str) -> AnyConfig:
    values: dict[str, Any] = read_yaml(path)
    if stage not in STAGES:  # as a damaged run folder says
        raise ValueError(f"{path}: stage {stage!r:.100}, expected one of {', '.join(STAGES)}")
    actual = values.get("stage")
    if actual != stage and isinstance(actual, str) and actual in STAGES:
        raise ValueError(f"{path}: configuration of stage {actual!r}, expected {stage!r}; train that stage instead")
    return STAGES[stage].parse(values, str(path))


def load_training_config(name_or_path: str, stage: str, overrides: Mapping[str, Any] | None = None) -> AnyConfig:
    """Load a configuration or preset and replace some of its fields.

    Args:
        name_or_path: YAML file, or name of a preset.
        stage: tokenizer, scorer or generator.
        overrides: new values by dotted key, as for `override`.

    Raises:
        FileNotFoundError: there is no such file or preset.
        ValueError: the file is not a valid configuration of this stage, a key is unknown, or a value is not allowed.
    """
    return override(load_config(name_or_path, stage), overrides or {})


def override(config: RunT, values: Mapping[str, Any]) -> RunT:
    """Return a copy of a configuration in which some fields are replaced.

    Fields that contradict a new one are derived from it: `max_steps` replaces `epochs` and the other way round, with
    the warm-up in proportion, and of the batch sizes those that are not given follow from those that are.

    Args:
        config: configuration to start from. It stays as it is.
        values: new values by dotted key, such as {"optimizer.lr": "1e-3", "lengths.kind": "fixed"}. Hyphens count as
            underscores, and old names of renamed fields are accepted. Strings are parsed as YAML, unless the field is a
            string.

    Raises:
        ValueError: a key is unknown or a value is not allowed.
    """
    new: dict[str, Any] = {}
    for key, value in values.items():
        name = resolve_key(type(config), key)
        if name in new:
            raise ValueError(f"{name} is given twice; give it once")
        new[name] = value
    if not new:
        return config
    return set_fields(config, {**_derived_length(config, new), **_derived_batch(config, new), **new})


def _derived_length(config: RunConfig, new: Mapping[str, Any]) -> dict[str, Any]:
    derived: dict[str, Any] = {}
    optimizer = config.optimizer
    if "max_steps" in new and "epochs" not in new:
        derived["epochs"] = None
        if optimizer.warmup_epochs is not None and config.epochs is not None:
            derived["optimizer.warmup_epochs"] = None
            steps = parse_value(new["max_steps"], int, "max_steps")
            if isinstance(steps, int):
                derived["optimizer.warmup_steps"] = math.ceil(steps * optimizer.warmup_epochs / config.epochs)
    if "epochs" in new and "max_steps" not in new:
        derived["max_steps"] = None
    if "optimizer.warmup_steps" in new:
        derived["optimizer.warmup_epochs"] = None
    return derived


def _derived_batch(config: RunConfig, new: Mapping[str, Any]) -> dict[str, Any]:
    size, micro, accumulation = (
        name in new for name in ("batch_size", "micro_batch_size", "gradient_accumulation_steps")
    )
    if micro and accumulation and not size:
        return {"batch_size": None}
    if (size or (micro and config.batch_size is not None)) and not accumulation:
        return {"gradient_accumulation_steps": None}
    if accumulation and not micro and (size or config.batch_size is not None):
        return {"micro_batch_size": None}
    return {}


def config_fields(stage: str) -> list[ConfigField]:
    """List the keys that the configuration of a stage has, with types, defaults and descriptions."""
    return list_fields(STAGES[stage])


def dump_config(config: AnyConfig) -> str:
    """Write a configuration as YAML that `load_config` reads, with every field."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120)
