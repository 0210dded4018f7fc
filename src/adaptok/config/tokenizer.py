"""Configuration of the tokenizer and its quantizer.

Legend: `C` channels, `T` frames, `S` pixels, `pt` and `p` patch sizes in time and space, `G` blocks of a clip, `P`
patches and `K` latents of a block.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from adaptok.config.base import Config, ConfigT, Count, Depth, Positive
from adaptok.config.transformer import StackConfig, TransformerConfig

_MAX_PATCH = 2**24  # far above every useful number of values


class VectorQuantizerConfig(Config):
    """Vector quantizer, which replaces a latent by the codebook entry with the highest cosine similarity."""

    kind: Literal["vector"] = "vector"
    """Type of the quantizer."""
    size: Positive = 8192
    """Number of codebook entries, at most 65536 because token ids are stored in 16 bits."""
    dim: Count = 16
    """Number of dimensions of a codebook entry."""
    temperature: Annotated[float, Field(ge=0.0)] = 0.03
    """Temperature of the draw during training, which takes an id from softmax(cosine / temperature). 0 takes the
    nearest entry."""
    commitment_weight: Annotated[float, Field(ge=0.0)] = 0.25
    """Weight of the loss that pulls latents to their codebook entries."""
    codebook_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of the loss that pulls codebook entries to their latents."""

    @property
    def codebook_size(self) -> int:
        """Number of token ids."""
        return self.size

    @property
    def code_dim(self) -> int:
        """Z, number of dimensions of a code."""
        return self.dim

    @model_validator(mode="after")
    def _check(self) -> VectorQuantizerConfig:
        return _check_ids(self, self.size)


class ScalarQuantizerConfig(Config):
    """Finite scalar quantizer (arXiv 2309.15505), which rounds each dimension to one of a few evenly spaced levels. It
    has no codebook and no loss."""

    kind: Literal["scalar"] = "scalar"
    """Type of the quantizer."""
    levels: tuple[Annotated[int, Field(ge=2)], ...] = (8, 8, 8, 8, 8)
    """Number of levels of each dimension. Their product is the number of token ids, at most 65536."""
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    """Temperature of the draw between adjacent levels during training, in squared level spacings. 0 rounds."""

    @property
    def codebook_size(self) -> int:
        """Number of token ids."""
        return math.prod(self.levels)

    @property
    def code_dim(self) -> int:
        """Z, number of dimensions of a code."""
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

    channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (64, 128)
    """Channels of each resolution level, from finest to coarsest, as multiples of 8. Each level halves the resolution,
    and so does the step from the last level to the patches. For example, two levels have strides of 4 and 8 pixels for
    patches of 16 pixels."""
    depth: Depth = 1
    """Number of residual blocks per level."""

    def cell(self, patch_size: int) -> int:
        """Return the stride of the finest level in pixels."""
        return patch_size >> len(self.channels)

    @model_validator(mode="after")
    def _check(self) -> ConvolutionConfig:
        if wrong := [width for width in self.channels if width % 8]:
            raise ValueError(f"{wrong[0]} channels, expected a multiple of 8")
        return self


class TokenizerConfig(Config):
    """Format of clips, and architecture of the encoder, quantizer and decoder."""

    frames: Count = 16
    """Number of frames of a clip."""
    size: Count = 128
    """Side of a frame in pixels."""
    channels: Count = 3
    """Number of colour channels."""
    patch_size: Count = 8
    """Side of a patch in pixels. It divides the side of a frame."""
    temporal_patch_size: Count = 4
    """Number of frames of a block, which is also the length of a patch in time. It divides the frames of a clip."""
    latents: Count = 512
    """Maximum number of latent tokens of a block."""
    encoder: StackConfig = StackConfig(width=768, depth=12, heads=12)
    """Transformer from patches to latents."""
    decoder: StackConfig = StackConfig(width=768, depth=12, heads=12)
    """Transformer from kept latents to patches."""
    quantizer: Annotated[VectorQuantizerConfig | ScalarQuantizerConfig, Field(discriminator="kind")] = (
        VectorQuantizerConfig()
    )
    """Quantizer from latents to token ids."""
    learned_positions: bool = False
    """Train the positional embeddings of patches and of decoder latents. Otherwise they stay sines and cosines."""
    patch_type_embedding: bool = True
    """Add a learned vector to every patch query of the decoder, which distinguishes patches from latents."""
    encoder_window: Positive | None = None
    """Side of the window that the patch embedding reads for each patch, in pixels: an even number from patch_size to
    twice patch_size. Windows larger than a patch overlap. Null is patch_size."""
    decoder_window: Positive | None = None
    """Side of the window that the output layer writes for each patch, in pixels: an even number from patch_size to
    twice patch_size. Overlapping windows are added. Null is patch_size."""
    stem: ConvolutionConfig | None = None
    """Convolutional stem, whose output is added to the patch embedding. Null is none."""
    head: ConvolutionConfig | None = None
    """Convolutional head, whose output is added to that of the output layer. Null is none."""

    @field_validator("encoder", "decoder", mode="before")
    @classmethod
    def _add_default_options(cls, value: Any) -> Any:
        plain = isinstance(value, TransformerConfig) and not isinstance(value, StackConfig)
        return value.model_dump() if plain else value

    @property
    def blocks(self) -> int:
        """G, number of blocks of a clip."""
        return self.frames // self.temporal_patch_size

    @property
    def grid(self) -> int:
        """Number of patches along a side."""
        return self.size // self.patch_size

    @property
    def patches(self) -> int:
        """P, number of patches of a block."""
        return self.grid**2

    @property
    def overlapping(self) -> bool:
        """Whether the windows of the encoder or the decoder are larger than patches."""
        return any(w is not None and w > self.patch_size for w in (self.encoder_window, self.decoder_window))

    @property
    def input_dim(self) -> int:
        """Number of values that the patch embedding reads for a patch."""
        return self.channels * self.temporal_patch_size * (self.encoder_window or self.patch_size) ** 2

    @property
    def output_dim(self) -> int:
        """Number of values that the output layer writes for a patch."""
        return self.channels * self.temporal_patch_size * (self.decoder_window or self.patch_size) ** 2

    @model_validator(mode="after")
    def _check(self) -> TokenizerConfig:
        if self.frames % self.temporal_patch_size:
            raise ValueError(
                f"frames {self.frames} is not a multiple of temporal_patch_size {self.temporal_patch_size}"
            )
        if max(self.input_dim, self.output_dim) > _MAX_PATCH:
            raise ValueError(
                f"patches of {max(self.input_dim, self.output_dim)} values, expected at most {_MAX_PATCH}; lower"
                " patch_size, temporal_patch_size or channels"
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
            convolutions = getattr(self, name)
            if convolutions is not None and self.patch_size % 2 ** len(convolutions.channels):
                raise ValueError(
                    f"{name} has {len(convolutions.channels)} levels, but patch_size {self.patch_size} cannot be halved"
                    " that often; give fewer channels"
                )
        return self
