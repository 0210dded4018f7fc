"""Typed, validated configuration of the models, and the presets.

Every class refuses unknown keys and names the nearest valid one. Sizes follow the legend of the project:
`T` frames, `S` pixels, `pt`/`p` patch sizes in time and space, `G` blocks of a clip, `P` patches and `K` latents of a
block, `D` width.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

Positive = Annotated[int, Field(gt=0)]
Fraction01 = Annotated[float, Field(ge=0.0, le=1.0)]
ConfigT = TypeVar("ConfigT", bound="Config")

MLP_RATIO = 4
"""Width of the hidden layer of an MLP, as a multiple of the width of rows."""


class Config(BaseModel):
    """Base of all configuration: immutable, keyword-only, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @classmethod
    def parse(cls: type[ConfigT], values: Mapping[str, Any], source: str = "configuration") -> ConfigT:
        """Validate `values`; every problem is told in one line that names the field and, for typos, the nearest one.

        Raises:
            ValueError: a key is unknown or a value is not allowed.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ValueError(f"{source}: " + "; ".join(explain(cls, item) for item in error.errors())) from None

    @classmethod
    def load(cls: type[ConfigT], path: str | Path) -> ConfigT:
        """Read a YAML (or JSON, its subset) file."""
        return cls.parse(read_yaml(path), str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML (or JSON, its subset) file.

    Raises:
        ValueError: there is none in it.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of fields, found {type(values).__name__}")
    return values


def explain(cls: type[BaseModel], error: Any) -> str:
    """One of pydantic's errors in words."""
    where = [part for part in error["loc"] if isinstance(part, str)]
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        message = str(error["msg"]).removeprefix("Value error, ")
        return f"{name}: {message}, got {error['input']!r}" if name and error["type"] != "value_error" else message
    fields = _fields_at(cls, where[:-1])
    near = difflib.get_close_matches(where[-1], fields, n=1)
    return f"unknown field {name!r}" + (
        f", did you mean {near[0]!r}?" if near else f", expected one of {sorted(fields)}"
    )


def _fields_at(cls: type[BaseModel], path: list[str]) -> list[str]:
    models = [cls]
    for part in path:
        tagged = [model for model in models if len(models) > 1 and _tag(model) == part]
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        models = tagged or [model for field in fields for model in _models_in(field.annotation)] or models
    return sorted({name for model in models for name in model.model_fields})


def _tag(model: type[BaseModel]) -> Any:
    """The kind of a member of a tagged union."""
    return model.model_fields["kind"].default if "kind" in model.model_fields else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


class TransformerConfig(Config):
    """Width, depth and heads of one stack of pre-norm blocks (MLP ratio 4)."""

    width: Positive
    """D, numbers of a row."""
    depth: Positive
    """Layers."""
    heads: Positive
    """Of the attention; divides the width."""

    @model_validator(mode="after")
    def _check(self) -> TransformerConfig:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self

    @property
    def mlp_weights(self) -> int:
        """Number of weights in the matrices of one MLP."""
        return 2 * MLP_RATIO * self.width**2


class StackConfig(TransformerConfig):
    """Sizes of the tokenizer's encoder or decoder, and options of its blocks. The defaults are those of the official
    models."""

    mlp: Literal["gelu", "swiglu"] = "gelu"
    """MLP of each block: two linears around a GELU, or SwiGLU (arXiv 2002.05202) without biases. Both have the same
    number of weights, up to rounding."""
    norm: Literal["layer", "rms"] = "layer"
    """Normalization before attention, before the MLP and after the decoder's last block: LayerNorm, or RMSNorm
    (arXiv 1910.07467)."""
    qk_norm: bool = False
    """Normalize the queries and keys of each head with RMSNorm (arXiv 2010.04245), which bounds attention scores."""
    rope: bool = False
    """Rotate queries and keys by their positions (arXiv 2104.09864), in addition to the positional embeddings. Needs a
    head dimension (width / heads) that is a multiple of 8."""

    def changed_options(self) -> str:
        """The block options that are not at their defaults, as "mlp 'swiglu', rope True"."""
        options = {name: f.default for name, f in StackConfig.model_fields.items() if not f.is_required()}
        changed = {name: getattr(self, name) for name, default in options.items() if getattr(self, name) != default}
        return ", ".join(f"{name} {value!r}" for name, value in changed.items())

    @property
    def hidden(self) -> int:
        """Width of the MLP's hidden layer: 4 widths, or for SwiGLU 8/3 widths rounded up to a multiple of 16."""
        return MLP_RATIO * self.width if self.mlp == "gelu" else -(-2 * MLP_RATIO * self.width // 48) * 16

    @property
    def mlp_weights(self) -> int:
        """Number of weights in the matrices of one MLP."""
        return (2 if self.mlp == "gelu" else 3) * self.width * self.hidden

    @model_validator(mode="after")
    def _check_rope(self) -> StackConfig:
        size = self.width // self.heads
        if self.rope and size % 8:
            raise ValueError(
                f"rope needs a head dimension that is a multiple of 8, but width {self.width} / heads {self.heads} is"
                f" {size}; change width or heads, or set rope to false"
            )
        return self


class VectorQuantizerConfig(Config):
    """Nearest codebook row by cosine similarity; in training the id is drawn from softmax(cosine / temperature)."""

    kind: Literal["vector"] = "vector"
    size: Positive = 8192
    """Codebook entries; ids are stored as uint16."""
    dim: Positive = 16
    """Dimensions of a code."""
    temperature: Annotated[float, Field(ge=0.0)] = 0.03
    """Of the draw in training; 0 takes the nearest row."""
    commitment_weight: Annotated[float, Field(ge=0.0)] = 0.25
    """Of the loss that draws latents to their codes."""
    codebook_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Of the loss that draws codes to their latents."""

    @property
    def codebook_size(self) -> int:
        return self.size

    @property
    def code_dim(self) -> int:
        return self.dim

    @model_validator(mode="after")
    def _check(self) -> VectorQuantizerConfig:
        return _check_ids(self, self.size)


class ScalarQuantizerConfig(Config):
    """Finite scalar quantization (arXiv 2309.15505): each dimension rounds to one of a few even levels; no codebook."""

    kind: Literal["scalar"] = "scalar"
    levels: tuple[Annotated[int, Field(ge=2)], ...] = (8, 8, 8, 8, 8)
    """Of each dimension; their product is the size of the codebook."""
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    """Of the draw in training, in squared level spacings; 0 rounds."""

    @property
    def codebook_size(self) -> int:
        return math.prod(self.levels)

    @property
    def code_dim(self) -> int:
        return len(self.levels)

    @model_validator(mode="after")
    def _check(self) -> ScalarQuantizerConfig:
        return _check_ids(self, self.codebook_size)


def _check_ids(config: ConfigT, size: int) -> ConfigT:
    if not 2 <= size <= 65536:
        raise ValueError(f"a codebook of {size} entries does not fit ids of 16 bits, expected 2 to 65536")
    return config


class ConvolutionConfig(Config):
    """Convolutions between pixels and patches, within the frames of one block."""

    channels: Annotated[tuple[Positive, ...], Field(min_length=1)] = (64, 128)
    """Channels of each resolution level, from finest to coarsest. Each level halves the resolution, and so does the
    step from the last level to the patches: with patches of 16 pixels, two levels have strides of 4 and 8 pixels."""
    depth: Positive = 1
    """Number of residual blocks per level."""

    def cell(self, patch_size: int) -> int:
        """Stride of the finest level in pixels."""
        return patch_size >> len(self.channels)

    @model_validator(mode="after")
    def _check(self) -> ConvolutionConfig:
        if wrong := [width for width in self.channels if width % 8]:
            raise ValueError(f"{wrong[0]} channels, expected a multiple of 8")
        return self


class TokenizerConfig(Config):
    """What a clip is, and the encoder, quantizer and decoder."""

    frames: Positive = 16
    """T, frames of a clip."""
    size: Positive = 128
    """S, pixels of a side."""
    channels: Positive = 3
    """C, colours of a pixel."""
    patch_size: Positive = 8
    """p, pixels of a patch's side."""
    temporal_patch_size: Positive = 4
    """pt, frames of a block."""
    latents: Positive = 512
    """K, latents of a block at its full length."""
    encoder: StackConfig = StackConfig(width=768, depth=12, heads=12)
    """From patches to latents."""
    decoder: StackConfig = StackConfig(width=768, depth=12, heads=12)
    """From kept latents to patches."""
    quantizer: Annotated[VectorQuantizerConfig | ScalarQuantizerConfig, Field(discriminator="kind")] = (
        VectorQuantizerConfig()
    )
    learned_positions: bool = False
    """Train the positional embeddings of patches and decoder latents instead of keeping sines and cosines."""
    patch_type_embedding: bool = True
    """A learned vector added to every patch query of the decoder."""
    encoder_window: Positive | None = None
    """Side of the window that the patch embedding reads for each patch, in pixels. Windows larger than patch_size
    overlap. patch_size if not given."""
    decoder_window: Positive | None = None
    """Side of the window that the output layer writes for each patch, in pixels. Overlapping windows are added.
    patch_size if not given."""
    stem: ConvolutionConfig | None = None
    """Convolutional stem whose output is added to the patch embedding; none if not given."""
    head: ConvolutionConfig | None = None
    """Convolutional head whose output is added to that of the output layer; none if not given."""

    @field_validator("encoder", "decoder", mode="before")
    @classmethod
    def _with_options(cls, value: Any) -> Any:
        """Accept sizes alone, with the default options."""
        plain = isinstance(value, TransformerConfig) and not isinstance(value, StackConfig)
        return value.model_dump() if plain else value

    @property
    def blocks(self) -> int:
        """G, blocks of a clip."""
        return self.frames // self.temporal_patch_size

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.size // self.patch_size

    @property
    def patches(self) -> int:
        """P, patches of a block."""
        return self.grid**2

    @property
    def overlapping(self) -> bool:
        """Whether the windows of the encoder or the decoder are larger than patches."""
        return any(w is not None and w > self.patch_size for w in (self.encoder_window, self.decoder_window))

    @property
    def input_dim(self) -> int:
        """Values that the patch embedding reads for a patch."""
        return self.channels * self.temporal_patch_size * (self.encoder_window or self.patch_size) ** 2

    @property
    def output_dim(self) -> int:
        """Values that the output layer writes for a patch."""
        return self.channels * self.temporal_patch_size * (self.decoder_window or self.patch_size) ** 2

    @model_validator(mode="after")
    def _check(self) -> TokenizerConfig:
        if self.frames % self.temporal_patch_size:
            raise ValueError(
                f"frames {self.frames} is not a multiple of temporal_patch_size {self.temporal_patch_size}"
            )
        if self.size % self.patch_size:
            raise ValueError(f"size {self.size} is not a multiple of patch_size {self.patch_size}")
        for name in ("encoder_window", "decoder_window"):
            window = getattr(self, name)
            if window is not None and not (self.patch_size <= window <= 2 * self.patch_size and window % 2 == 0):
                raise ValueError(
                    f"{name} {window}, expected an even number from patch_size {self.patch_size} to twice as many"
                )
        for name in ("stem", "head"):
            part = getattr(self, name)
            if part is not None and self.patch_size % 2 ** len(part.channels):
                raise ValueError(
                    f"{name} has {len(part.channels)} levels, but patch_size {self.patch_size} cannot be halved that"
                    " often; give fewer channels"
                )
        return self


Distortion = Literal["lpips", "mse", "l1", "dssim", "multiscale"]


class ScorerConfig(TransformerConfig):
    """The scorer: its stack, its candidate lengths, and how its output becomes a distortion."""

    width: Positive = 768
    depth: Positive = 12
    heads: Positive = 12
    length_step: Positive = Field(default=64, validation_alias=AliasChoices("length_step", "step"))
    """Candidate lengths are the multiples of `length_step`."""
    distortion: Distortion = "lpips"
    """What is predicted, as the mean over a block."""
    scale: Literal["linear", "log"] = "linear"
    """Whether the output is the normalised distortion or the normalised logarithm of it."""
    mean: float = 0.19749267
    """Of the (log) distortion over the training data; the default is the official LPIPS statistic."""
    std: Annotated[float, Field(gt=0.0)] = 0.07615979
    """Its standard deviation."""
    probe_lengths: tuple[Positive, ...] = Field(default=(), validation_alias=AliasChoices("probe_lengths", "anchors"))
    """Candidate lengths at which an encoder measures the distortion, by decoding, and corrects the predictions to go
    through what it found."""

    lambdas: tuple[tuple[float, float], ...] = Field(default=(), validation_alias=AliasChoices("lambdas", "prices"))
    """(tokens, λ): what a block takes on average at a λ, measured on training clips, fewest first; a
    stream with a budget starts from it."""

    @model_validator(mode="after")
    def _check_probe_lengths(self) -> ScorerConfig:
        if list(self.probe_lengths) != sorted(set(self.probe_lengths)) or any(
            length % self.length_step for length in self.probe_lengths
        ):
            raise ValueError(
                f"probe_lengths {list(self.probe_lengths)}, expected rising multiples of length_step {self.length_step}"
            )
        if any(a[0] >= b[0] or a[1] <= b[1] for a, b in pairwise(self.lambdas)) or any(p <= 0 for _, p in self.lambdas):
            raise ValueError("lambdas that do not fall as tokens rise, or are not above 0; measure them again")
        if self.probe_lengths and self.distortion == "lpips":
            raise ValueError(
                "probe_lengths need a distortion that an encoder can measure, and lpips needs other weights"
            )
        return self


class PriorConfig(TransformerConfig):
    """Small causal transformer that predicts each kept code from those before it (LARP's prior)."""

    width: Positive = 512
    depth: Positive = 12
    heads: Positive = 8
    dropout: Fraction01 = 0.1
    """Of inputs, attention weights and layers, in training."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """Divides the cosine similarities that are the logits."""
    sampling_peak: Fraction01 = 0.5
    """Largest share of second-round inputs that are replaced by ids drawn in the first."""
    sampling_ramp: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """Share of the training over which that share rises from 0."""


class ModelConfig(Config):
    """A whole model: what `config.json` of a checkpoint folder holds beside `format` and `version`."""

    name: str = "adaptok"
    """What the model calls itself."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    scorer: ScorerConfig | None = ScorerConfig()
    prior: PriorConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.scorer is not None and self.tokenizer.latents % self.scorer.length_step:
            raise ValueError(
                f"latents {self.tokenizer.latents} is not a multiple of the scorer's length_step"
                f" {self.scorer.length_step}"
            )
        if (
            self.scorer is not None
            and self.scorer.probe_lengths
            and self.scorer.probe_lengths[-1] > self.tokenizer.latents
        ):
            raise ValueError(
                f"probe length {self.scorer.probe_lengths[-1]} is above the {self.tokenizer.latents} latents of a block"
            )
        if self.prior is not None and self.tokenizer.quantizer.kind != "vector":
            raise ValueError("a prior needs the vector quantizer: it predicts rows of a codebook")
        return self


class DiscriminatorTrainingConfig(Config):
    """How a discriminator of any kind is trained, and how its loss is weighted in the tokenizer's objective."""

    loss: Literal["non_saturating", "hinge"] = "non_saturating"
    """Adversarial objective: 'non_saturating' is the cross-entropy with noisy one-sided labels, 'hinge' the hinge loss,
    which has no labels."""
    adaptive: bool = False
    """Rescale the adversarial gradient with respect to the reconstructed clips, at every step, to losses.adversarial
    times the norm of the gradient of all other reconstruction losses."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-5
    """Constant learning rate of its Adam optimizer."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Of its Adam's moving averages."""
    every: Positive = 5
    """Steps between its updates."""
    real_noise: Annotated[float, Field(ge=0.0)] = 0.15
    """With loss non_saturating: labels of real clips are 1 - real_noise * |normal| …"""
    real_least: Fraction01 = 0.7
    """… and at least this."""
    fake_noise: Annotated[float, Field(ge=0.0)] = 0.15
    """With loss non_saturating: labels of made clips are fake_noise * |normal| …"""
    fake_most: Fraction01 = 0.3
    """… and at most this."""
    lecam: Annotated[float, Field(ge=0.0)] = 0.001
    """Weight of the LeCam regularisation, with either loss."""
    lecam_decay: Fraction01 = 0.999
    """Of the moving averages that it compares with."""


class TransformerDiscriminatorConfig(TransformerConfig, DiscriminatorTrainingConfig):
    """Transformer that tells real clips from reconstructed ones, with one logit per clip."""

    kind: Literal["transformer"] = "transformer"
    width: Positive = 512
    """D, numbers of a row."""
    depth: Positive = 12
    """Layers."""
    heads: Positive = 8
    """Of the attention; divides the width."""
    patch_size: Positive = 8
    """Pixels of a side of its patches."""
    temporal_patch_size: Positive = 4
    """Frames of its patches."""


class PatchDiscriminatorConfig(DiscriminatorTrainingConfig):
    """Convolutions that tell real clips from reconstructed ones, with one logit per patch in space and time."""

    kind: Literal["patch"] = "patch"
    channels: Positive = 32
    """Output channels of the first layer, a multiple of 8. Each further layer has twice as many."""
    max_channels: Positive = 256
    """Largest number of channels, a multiple of 8."""
    layers: Positive = 3
    """Number of layers. Each one halves the resolution, so clips of 128 pixels have 16 x 16 patches with 3 layers."""
    temporal_layers: Annotated[int, Field(ge=0)] = 2
    """Number of layers, from the first, that also halve the number of frames."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of every layer."""
        return tuple(min(self.channels << index, self.max_channels) for index in range(self.layers))

    @property
    def temporal_strides(self) -> tuple[int, ...]:
        """Temporal stride of every layer."""
        return tuple(2 if index < self.temporal_layers else 1 for index in range(self.layers))

    @model_validator(mode="after")
    def _check(self) -> PatchDiscriminatorConfig:
        for name in ("channels", "max_channels"):
            if (value := getattr(self, name)) % 8:
                raise ValueError(f"{name} {value}, expected a multiple of 8")
        if self.temporal_layers > self.layers:
            raise ValueError(f"temporal_layers {self.temporal_layers}, expected at most the {self.layers} layers")
        return self


def _default_to_transformer(values: Any) -> Any:
    """Add the kind that discriminators had before there were two."""
    return {"kind": "transformer", **values} if isinstance(values, Mapping) else values


DiscriminatorConfig = Annotated[
    TransformerDiscriminatorConfig | PatchDiscriminatorConfig,
    Field(discriminator="kind"),
    BeforeValidator(_default_to_transformer),
]


class GeneratorConfig(TransformerConfig):
    """Autoregressive transformer over the ids of clips, with one condition: a class, or the ids of first frames."""

    name: str = "adaptok-generator"
    """What the model calls itself."""
    codebook_size: Positive
    """Ids of the tokenizer; the end-of-block mark comes after them."""
    blocks: Positive = 4
    """Blocks that are written."""
    latents: Positive = 512
    """K, most ids of a block."""
    classes: Annotated[int, Field(ge=0)] = 0
    """Of the condition; 0 where it is the ids of first frames."""
    labels: tuple[str, ...] = ()
    """Names of the classes, where they have names."""
    condition_ids: Annotated[int, Field(ge=0)] = 0
    """Ids of first frames that are the condition; 0 where it is a class."""
    condition_frames: Annotated[int, Field(ge=0)] = 0
    """First frames that the condition was made of in training; 0 where that is not known, or there are none."""
    first_block: Annotated[int, Field(ge=0)] = 0
    """Block of the clip that is written first; those before it are copied from the condition."""
    levels: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """Of a scalar quantizer: ids are embedded and predicted by their digits. A small model then needs no row for every
    id. None: a row each."""
    mixture: Positive = 1
    """With `levels`: how many products of independent digits a prediction is a mixture of."""
    dropout: Fraction01 = 0.1
    """Of what attention and MLP add, in training."""
    token_dropout: Fraction01 = 0.1
    """Of the embedded row, in training."""
    class_dropout: Fraction01 = 0.1
    """Share of the classes that training replaces by none, for guidance."""
    model: str | None = None
    """Name of the tokenizer that the ids are of."""
    model_hash: str | None = None
    """Hash of its weights."""

    @property
    def vocabulary(self) -> int:
        """Ids, and the end-of-block mark."""
        return self.codebook_size + 1

    @property
    def end(self) -> int:
        """The end-of-block mark."""
        return self.codebook_size

    @property
    def separator(self) -> int:
        """Entry between the ids of first frames and the written ids."""
        return self.codebook_size + 1

    @property
    def prefix(self) -> int:
        """Rows of the condition: a class, or ids and a separator."""
        return self.condition_ids + 1

    @property
    def longest(self) -> int:
        """Most entries of a written row: ids and marks."""
        return self.blocks * (self.latents + 1)

    @property
    def hidden(self) -> int:
        """Width of the MLP's hidden layer: 2/3 of 4 widths, up to a multiple of 256."""
        return -(-(8 * self.width // 3) // 256) * 256

    @model_validator(mode="after")
    def _check_condition(self) -> GeneratorConfig:
        if bool(self.classes) == bool(self.condition_ids):
            raise ValueError(
                f"classes {self.classes} and condition_ids {self.condition_ids}: give one of them, above 0"
            )
        if self.labels and len(self.labels) != self.classes:
            raise ValueError(f"{len(self.labels)} labels for {self.classes} classes, expected one each")
        if self.first_block * self.latents > self.condition_ids:
            raise ValueError(
                f"first_block {self.first_block} needs {self.first_block * self.latents} ids to copy,"
                f" condition_ids is {self.condition_ids}"
            )
        if self.levels and math.prod(self.levels) != self.codebook_size:
            raise ValueError(f"levels {list(self.levels)}, expected a product of {self.codebook_size}")
        if self.mixture > 1 and not self.levels:
            raise ValueError(f"mixture {self.mixture} needs levels")
        return self


GENERATOR_SIZES = {  # width, layers, heads of the official generators
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "LP": (1280, 30, 20),
    "XL": (1280, 36, 20),
    "XXL": (1536, 48, 24),
    "XXXL": (2560, 48, 40),
}


def generator_size(name: str) -> TransformerConfig:
    """Width, depth and heads of an official size of the generator.

    Raises:
        ValueError: there is no such size.
    """
    if name not in GENERATOR_SIZES:
        raise ValueError(f"size {name!r} of a generator, expected one of {', '.join(GENERATOR_SIZES)}")
    width, depth, heads = GENERATOR_SIZES[name]
    return TransformerConfig(width=width, depth=depth, heads=heads)


def base() -> ModelConfig:
    """The official sizes: tokenizer 173 M, scorer 89 M parameters."""
    return ModelConfig(name="adaptok-base")
