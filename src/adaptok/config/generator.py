"""Configuration of generators."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, model_validator

from adaptok.config.base import Count, Depth, Fraction01
from adaptok.config.transformer import TransformerConfig


class GeneratorConfig(TransformerConfig):
    """Autoregressive transformer over the ids of clips, conditioned on a class or on the ids of the first frames.

    An entry is an id or an end-of-block token.
    """

    name: str = "adaptok-generator"
    """Name of the model."""
    codebook_size: Count
    """Number of token ids of the tokenizer. The end-of-block token is the next integer."""
    blocks: Count = 4
    """Number of blocks that are generated."""
    latents: Count = 512
    """Maximum number of ids of a block."""
    classes: Annotated[int, Field(ge=0, le=65536)] = 0
    """Number of classes, or 0 if the condition consists of ids of the first frames."""
    labels: tuple[str, ...] = ()
    """Names of the classes. Classes without names are numbered."""
    condition_ids: Annotated[int, Field(ge=0, le=2**24)] = 0
    """Number of ids of the first frames in the condition, or 0 if the condition is a class."""
    condition_frames: Annotated[int, Field(ge=0, le=65536)] = 0
    """Number of first frames in the condition during training, or 0 if it is unknown or the condition is a class."""
    first_block: Annotated[int, Field(ge=0, le=65536)] = 0
    """Index of the first block that is generated. Earlier blocks are copied from the condition."""
    levels: tuple[Annotated[int, Field(ge=2)], ...] = ()
    """Levels of the scalar quantizer, to embed and predict ids by their digits, so that a small model needs no
    embedding per id. Empty for one embedding per id."""
    mixture: Depth = 1
    """Number of products of independent digits in the mixture that predicts an id. More than 1 needs `levels`."""
    dropout: Fraction01 = 0.1
    """Dropout probability of the outputs of attention and MLP during training."""
    token_dropout: Fraction01 = 0.1
    """Dropout probability of the embedded sequence, before positions are added, during training."""
    class_dropout: Fraction01 = 0.1
    """Fraction of class labels that are dropped during training, for classifier-free guidance."""
    model: str | None = None
    """Name of the tokenizer that the ids come from."""
    model_hash: str | None = None
    """Hash of the weights of that tokenizer."""

    @property
    def vocabulary(self) -> int:
        """V, number of ids plus the end-of-block token."""
        return self.codebook_size + 1

    @property
    def eob(self) -> int:
        """End-of-block token."""
        return self.codebook_size

    @property
    def separator(self) -> int:
        """Entry between the ids of the first frames and the generated ids."""
        return self.codebook_size + 1

    @property
    def prefix(self) -> int:
        """P, number of rows of the condition: one for a class, or those of the ids and a separator."""
        return self.condition_ids + 1

    @property
    def max_entries(self) -> int:
        """Maximum number of generated entries of a clip."""
        return self.blocks * (self.latents + 1)

    @property
    def hidden(self) -> int:
        """Width of the MLP's hidden layer: 8/3 widths, rounded up to a multiple of 256."""
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
            raise ValueError(f"mixture {self.mixture} needs levels; give them, or set mixture to 1")
        return self


GENERATOR_SIZES = {  # width, depth and heads of the official generators
    "S": (384, 12, 6),
    "B": (768, 12, 12),
    "L": (1024, 24, 16),
    "LP": (1280, 30, 20),
    "XL": (1280, 36, 20),
    "XXL": (1536, 48, 24),
    "XXXL": (2560, 48, 40),
}


def generator_size(name: str) -> TransformerConfig:
    """Return the width, depth and heads of an official generator size.

    Raises:
        ValueError: there is no such size.
    """
    if name not in GENERATOR_SIZES:
        raise ValueError(f"generator size {name!r}, expected one of {', '.join(GENERATOR_SIZES)}")
    width, depth, heads = GENERATOR_SIZES[name]
    return TransformerConfig(width=width, depth=depth, heads=heads)
