"""Typed, validated configuration of a training run, and the presets of all stages."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any, Literal, overload

from pydantic import Field, model_validator

from adaptok.config.model import (
    Config,
    DiscriminatorConfig,
    DiscriminatorTrainingConfig,
    Fraction01,
    ModelConfig,
    PatchDiscriminatorConfig,
    Positive,
    TransformerConfig,
    TransformerDiscriminatorConfig,
    read_yaml,
)


class UniformLengths(Config):
    """Lengths drawn evenly from `least … most`, for every clip and block."""

    kind: Literal["uniform"] = "uniform"
    least: Annotated[int, Field(ge=0)]
    """Fewest latents of a block; the first block of a clip keeps one at least."""
    most: Positive
    """Most latents of a block."""

    @model_validator(mode="after")
    def _check(self) -> UniformLengths:
        if self.least > self.most:
            raise ValueError(f"least {self.least} is above most {self.most}")
        return self


class NormalLengths(Config):
    """Lengths drawn from a normal law and cut to `least … most`: the official tail drop."""

    kind: Literal["normal"] = "normal"
    mean: float
    """Of the law before it is cut."""
    std: Annotated[float, Field(gt=0.0)]
    """Of the law before it is cut."""
    least: Annotated[int, Field(ge=0)]
    """Fewest latents of a block; the first block of a clip keeps one at least."""
    most: Positive
    """Most latents of a block."""


class FixedLengths(Config):
    """The same length for every clip and block."""

    kind: Literal["fixed"] = "fixed"
    length: Positive
    """Of every block."""

    @property
    def most(self) -> int:
        return self.length


SimpleLaw = Annotated[UniformLengths | NormalLengths | FixedLengths, Field(discriminator="kind")]


class MixtureLengths(Config):
    """One of several laws, drawn for every clip."""

    kind: Literal["mixture"] = "mixture"
    laws: Annotated[tuple[SimpleLaw, ...], Field(min_length=1)]
    weights: tuple[Annotated[float, Field(ge=0.0)], ...]
    """How often each law is drawn, in proportion."""

    @property
    def most(self) -> int:
        return max(law.most for law in self.laws)

    @model_validator(mode="after")
    def _check(self) -> MixtureLengths:
        if len(self.weights) != len(self.laws) or sum(self.weights) <= 0:
            raise ValueError(f"{len(self.weights)} weights for {len(self.laws)} laws, expected one each, not all 0")
        return self


LengthLaw = Annotated[UniformLengths | NormalLengths | FixedLengths | MixtureLengths, Field(discriminator="kind")]


class DataConfig(Config):
    """Where training clips come from."""

    train: tuple[str, ...] = ()
    """Folders, searched recursively for videos and photographs; lists of files: CSV (path[,label], or
    id,path,action,label), text (path [label]), or an index of 'adaptok data index' (.parquet)."""
    root: str | None = None
    """Where relative paths in lists start; the folder of the list if not given."""
    weights: tuple[Annotated[float, Field(ge=0.0)], ...] = ()
    """How often a clip comes from each entry of `train`, in proportion; with none, all are one collection."""
    image_share: Fraction01 = 0.3
    """Share of the clips that are drawn from photographs, under a moving camera, where there are both."""
    drawn_share: Fraction01 = 0.0
    """Share of the clips that are drawn: shapes, patterns and text with sharp edges."""
    text_share: Fraction01 = 0.0
    """Share of all clips that have text written over them."""
    strides: tuple[Positive, ...] = (1, 1, 2)
    """Steps between the frames of a video, one drawn per clip."""
    flip: bool = True
    """Mirror half of the clips."""
    reversed_share: Fraction01 = 0.0
    """Fraction of clips that are played backwards."""
    cut_share: Fraction01 = 0.0
    """Fraction of clips that cut to another clip at a random frame."""
    least_crop: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Smallest crop of a video, as a fraction of the clip's side. Crops smaller than the clip are enlarged."""
    validation: str | None = None
    """Folder of videos whose first clips are reconstructed now and then."""
    most_broken: Fraction01 = 0.2
    """Share of unreadable files above which a run stops."""
    workers: Annotated[int, Field(ge=0)] = 1
    """Processes that decode."""
    cache_gib: Annotated[float, Field(ge=0.0)] = 3.0
    """Decoded frames kept in memory by each worker."""


class OptimizerConfig(Config):
    """AdamW (which is Adam where the decay is 0) or Muon, and the schedule."""

    kind: Literal["adamw", "muon"] = "adamw"
    """'muon' takes orthogonal steps of AdamW's usual size in the matrices of the transformer layers and the kernels of
    residual convolutions, and leaves everything else to AdamW."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """At its peak."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of the moving averages of the gradient and of its square."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Of AdamW, times the rate."""
    decay_vectors: bool = True
    """Whether it is also of norms and biases, and not of matrices and embeddings alone."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps over which the rate rises from 0."""
    warmup_epochs: Annotated[float, Field(ge=0.0)] | None = None
    """Instead of `warmup_steps`, where the length of the run is given in epochs."""
    final_ratio: Fraction01 = 0.02
    """Learning rate at the last step, as a share of the peak."""
    clip_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Largest norm of the gradient."""
    prior_multiplier: Annotated[float, Field(gt=0.0)] = 50.0
    """Learning rate of the prior, as a multiple of the rest's."""
    written_multiplier: Annotated[float, Field(ge=0.0)] = 0.1
    """The same for the weights that a linear start wrote."""


class LpipsLossConfig(Config):
    """LPIPS loss: its weight, and the part of each clip it is computed on. A plain number is read as the weight."""

    weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the mean over the frames used. 0 disables the loss."""
    frames: Positive | None = None
    """Number of frames per clip, drawn at random at each step; all frames if not given."""
    crop: Annotated[int, Field(ge=16)] | None = None
    """Side of the random square crop of the frames, in pixels; whole frames if not given."""

    @model_validator(mode="before")
    @classmethod
    def _accept_number(cls, value: Any) -> Any:
        return {"weight": value} if isinstance(value, int | float) else value


RECONSTRUCTION_TERMS = ("l1", "mse", "lpips", "lpips_alex", "dssim", "frequency", "borders")
"""Terms of the tokenizer's objective that compare reconstructed clips with the originals."""
TERMS = (*RECONSTRUCTION_TERMS, "quantizer", "prior", "adversarial")
"""All terms of the tokenizer's objective."""


class TokenizerLossConfig(Config):
    """Weights of the tokenizer's objective."""

    l1: Annotated[float, Field(ge=0.0)] = 1.0
    """Of the mean absolute error of pixels in [0, 1]."""
    mse: Annotated[float, Field(ge=0.0)] = 0.0
    """Of their mean squared error."""
    lpips: LpipsLossConfig = LpipsLossConfig()
    """LPIPS loss with VGG16. Needs lpips_weights."""
    lpips_alex: LpipsLossConfig = LpipsLossConfig()
    """LPIPS loss with AlexNet, which takes about a twentieth of the FLOPs of VGG16. Needs lpips_alex_weights."""
    dssim: Annotated[float, Field(ge=0.0)] = 0.0
    """Of 1 - structural similarity; needs no downloaded weights."""
    frequency: Annotated[float, Field(ge=0.0)] = 0.0
    """Of the distance of the spectra of frames; needs no downloaded weights."""
    borders: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the mean absolute error of differences across patch borders, which penalizes a visible grid."""
    quantizer: Annotated[float, Field(ge=0.0)] = 0.1
    """Of the losses of the vector quantizer; the scalar one has none."""
    prior: Annotated[float, Field(ge=0.0)] = 0.06
    """Of the cross-entropy of ids under the prior, where the model has one."""
    adversarial: Annotated[float, Field(ge=0.0)] = 0.0
    """Weight of the adversarial loss. 0 disables the discriminator. With discriminator.adaptive, it is relative to the
    reconstruction losses."""
    start: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    """Step from which a term counts, for those that wait."""

    @model_validator(mode="after")
    def _check(self) -> TokenizerLossConfig:
        if unknown := sorted(self.start.keys() - set(TERMS)):
            raise ValueError(f"start of {unknown[0]!r}, expected one of {', '.join(TERMS)}")
        return self

    def weight(self, term: str, step: int) -> float:
        """Weight of a term at a step."""
        return self.full_weight(term) if step >= self.start.get(term, 0) else 0.0

    def full_weight(self, term: str) -> float:
        """Weight of a term once it has started."""
        value = getattr(self, term)
        weight: float = value.weight if isinstance(value, LpipsLossConfig) else value
        return weight


class RunConfig(Config):
    """What a run of any stage has. Its subclasses add `stage`, `model` and `data`."""

    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW and its schedule."""
    steps: Positive | None = None
    """Length of the run."""
    epochs: Annotated[float, Field(gt=0.0)] | None = None
    """Instead of `steps`: one clip of every file is an epoch; of a token dataset, every clip."""
    batch: Positive = 8
    """Clips of a step on each process, before accumulation."""
    accumulation: Positive = 1
    """Batches whose gradients are averaged before a step."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the computation; weights are float32."""
    compile: bool = False
    """Compile the parts of the layers that do not depend on lengths."""
    activation_checkpointing: bool = False
    """Keep the input of each layer only, and compute it again for the gradient: less memory, a third more work."""
    sharding: bool = False
    """Split weights, gradients and optimizer state over the processes (FSDP), for what does not fit one device."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    """Of the moving average of the weights, which is what is exported; 0 keeps none."""
    seed: int = 0
    """Of everything random: clips, lengths, ids, weights."""
    log_every: Positive = 20
    """Steps between lines of metrics."""
    validate_every: Positive = 500
    """Steps between validations, with samples and curves."""
    checkpoint_every: Positive = 500
    """Steps between checkpoints; what is done after the last one is done again after a kill."""
    keep_checkpoints: Positive = 2
    """The newest ones; the model that validates best is kept besides."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """What metrics are sent to, besides metrics.jsonl."""

    @model_validator(mode="after")
    def _check_length(self) -> RunConfig:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(f"steps {self.steps} and epochs {self.epochs}: give one of them")
        if self.optimizer.warmup_epochs is not None and self.epochs is None:
            raise ValueError("optimizer.warmup_epochs needs epochs; give optimizer.warmup_steps with steps")
        if self.optimizer.kind == "muon" and self.sharding:
            raise ValueError("optimizer.kind muon needs whole matrices; use adamw with sharding")
        return self


class TrainingConfig(RunConfig):
    """One run of a stage that learns from clips."""

    stage: Literal["tokenizer", "scorer"]
    """What is trained."""
    model: ModelConfig
    """Its architecture."""
    start: Literal["random", "linear"] = "random"
    """Initialisation of a new tokenizer: 'linear' makes it a progressive linear codec before the first step."""
    initial: str | None = None
    """Model folder to start from; the scorer's tokenizer comes from here."""
    fit_output_clips: Annotated[int, Field(ge=0)] = 0
    """Number of training clips on which the output layer is fitted by least squares before the first step. A few
    hundred suffice for overlapping windows. 0 disables the fit."""
    data: DataConfig = DataConfig()
    """Clips."""
    lengths: LengthLaw
    """Law of the lengths of rows: the tail drop (tokenizer); of the blocks before the scored one (scorer)."""
    losses: TokenizerLossConfig = TokenizerLossConfig()
    """Weights of the tokenizer's losses."""
    lpips_weights: str | None = None
    """File of VGG16 for LPIPS: torchvision's vgg16-397923af.pth, or its tensors as safetensors."""
    lpips_alex_weights: str | None = None
    """File of AlexNet for LPIPS: torchvision's alexnet-owt-7be5be79.pth, or its tensors as safetensors."""
    trainable: tuple[Literal["encoder", "decoder"], ...] = ("encoder", "decoder")
    """Parts of the tokenizer that a tokenizer run trains. "encoder" is everything up to the token ids, "decoder"
    everything after them: if only the decoder is trained, existing tokens stay valid."""
    discriminator: DiscriminatorConfig = TransformerDiscriminatorConfig()
    """For the adversarial loss."""

    @model_validator(mode="after")
    def _check(self) -> TrainingConfig:
        if self.stage == "scorer" and self.model.scorer is None:
            raise ValueError("the model of a scorer run needs a scorer")
        if self.data.weights and len(self.data.weights) != len(self.data.train):
            raise ValueError(f"{len(self.data.weights)} data.weights for {len(self.data.train)} entries of data.train")
        if self.lengths.most > self.model.tokenizer.latents:
            raise ValueError(
                f"lengths.most {self.lengths.most} is above the {self.model.tokenizer.latents} latents of a block"
            )
        if self.discriminator.adaptive and not any(self.losses.full_weight(name) for name in RECONSTRUCTION_TERMS):
            raise ValueError(
                "discriminator.adaptive weighs the adversarial loss against the reconstruction losses, but all their"
                f" weights are 0; give one of losses.{', losses.'.join(RECONSTRUCTION_TERMS)}"
            )
        if self.fit_output_clips and (self.stage != "tokenizer" or "decoder" not in self.trainable):
            raise ValueError(
                f"fit_output_clips {self.fit_output_clips} changes the decoder, which this run does not train;"
                " set it to 0"
            )
        if self.losses.borders and self.model.tokenizer.grid < 2:
            raise ValueError(
                f"losses.borders {self.losses.borders:g} needs more than one patch along a side, but patch_size is"
                " size; set losses.borders to 0"
            )
        critic, size = self.discriminator, self.model.tokenizer.size
        if isinstance(critic, PatchDiscriminatorConfig) and size >> critic.layers < 2:
            raise ValueError(
                f"discriminator.layers {critic.layers} leave less than 2 x 2 patches of clips of {size} pixels,"
                f" expected at most {size.bit_length() - 2}"
            )
        return self


def with_discriminator(config: TrainingConfig, kind: str) -> TrainingConfig:
    """Replace the discriminator by one of another kind, with default sizes. How it is trained stays the same.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in ("transformer", "patch"):
        raise ValueError(f"discriminator.kind {kind!r}, expected transformer or patch")
    shared = config.discriminator.model_dump(include=set(DiscriminatorTrainingConfig.model_fields))
    return TrainingConfig.parse({**config.model_dump(), "discriminator": {"kind": kind, **shared}})


class TokenDataConfig(Config):
    """Where a generator's clips come from."""

    train: tuple[str, ...] = ()
    """Token datasets: folders that 'adaptok tokenize' wrote."""
    validation: str | None = None
    """Token dataset of other videos, for loss and accuracy."""
    held_out: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Instead of `validation`: share of the source videos that are kept for it, with all their clips."""
    labels: tuple[str, ...] = ()
    """Classes, in the order of their numbers; those that occur in `train`, by name, if not given."""
    validation_clips: Positive = 64
    """Most clips that validation measures."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read."""

    @model_validator(mode="after")
    def _check(self) -> TokenDataConfig:
        if self.validation is not None and self.held_out:
            raise ValueError(f"validation {self.validation!r} and held_out {self.held_out:g}: give one of them")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels {list(self.labels)}, expected each once")
        return self


class GeneratorPlan(TransformerConfig):
    """A generator as a run names it. What is not given follows from the token dataset; `token_data.resolve` makes a
    `GeneratorConfig` of it."""

    name: str = "adaptok-generator"
    """What the model calls itself."""
    condition: Literal["class", "frames"] | None = None
    """frames where the clips of the dataset have a condition, class otherwise, if not given."""
    mixture: Positive = 1
    """With levels: how many products of independent digits a prediction is a mixture of."""
    dropout: Fraction01 = 0.1
    """Of what attention and MLP add, in training."""
    token_dropout: Fraction01 = 0.1
    """Of the embedded row, in training."""
    class_dropout: Fraction01 = 0.1
    """Share of the classes that training replaces by none, for guidance."""
    levels: tuple[Annotated[int, Field(ge=2)], ...] | None = None
    """Of a scalar quantizer: ids are embedded and predicted by their digits. Empty: a row for every id."""
    codebook_size: Positive | None = None
    """Ids of the tokenizer."""
    blocks: Positive | None = None
    """Blocks that are written."""
    latents: Positive | None = None
    """K, most ids of a block."""
    classes: Annotated[int, Field(ge=0)] | None = None
    """Of the condition; 0 where it is the ids of first frames."""
    condition_ids: Annotated[int, Field(ge=0)] | None = None
    """Ids of first frames that are the condition; 0 where it is a class."""
    first_block: Annotated[int, Field(ge=0)] | None = None
    """Block of the clip that is written first."""
    model: str | None = None
    """Name of the tokenizer that the ids are of."""
    model_hash: str | None = None
    """Hash of its weights."""


class GeneratorTrainingConfig(RunConfig):
    """One run of a generator."""

    stage: Literal["generator"]
    """What is trained."""
    model: GeneratorPlan
    """Its architecture."""
    initial: str | None = None
    """Generator folder to start from."""
    data: TokenDataConfig = TokenDataConfig()
    """Token datasets."""
    tokenizer: str | None = None
    """Model folder or hub id that decodes the samples; the model in the box if not given, where the ids are its."""
    samples: Annotated[int, Field(ge=0)] = 6
    """Clips that are generated at each validation."""


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
    """A configuration from a YAML file, or a preset by name ("tiny", "small", "base") for a stage.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: the file is not a configuration, or one for another stage.
    """
    if Path(name).suffix in (".yaml", ".yml", ".json"):
        return _load(Path(name), stage)
    for file in (f"{name}-{stage}.yaml", f"{name}.yaml"):
        with as_file(files("adaptok") / "config" / "presets" / file) as path:
            if path.is_file():
                return _load(path, stage)
    raise FileNotFoundError(f"{name}: neither a YAML file nor a preset, expected tiny, small or base")


def _load(path: Path, stage: str) -> AnyConfig:
    values = read_yaml(path)
    found = values.get("stage")
    if found != stage and found in STAGES:
        raise ValueError(f"{path}: a configuration for the stage {found!r}, asked for {stage!r}")
    return STAGES[stage].parse(values, str(path))
