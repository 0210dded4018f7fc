"""Distributions from which training draws the length of each block."""

from __future__ import annotations

from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, model_validator

from adaptok.config.base import Config, Positive

MIN_PROBABILITY = 1e-6
"""Smallest probability of the interval that a normal distribution is truncated to."""


class BoundedLengths(Config):
    """Smallest and largest length of a distribution."""

    min: Annotated[int, Field(ge=0, validation_alias=AliasChoices("min", "least"))]
    """Smallest number of latents of a block. The first block of a clip always keeps at least one."""
    max: Annotated[int, Field(gt=0, validation_alias=AliasChoices("max", "most"))]
    """Largest number of latents of a block."""

    @model_validator(mode="after")
    def _check_bounds(self) -> BoundedLengths:
        if self.min > self.max:
            raise ValueError(f"lengths: min {self.min} is above max {self.max}; lower min or raise max")
        return self


class UniformLengths(BoundedLengths):
    """Uniform distribution over `min … max`, drawn for each block of each clip."""

    kind: Literal["uniform"] = "uniform"


class NormalLengths(BoundedLengths):
    """Normal distribution, rounded and clamped to `min … max`, which are therefore drawn more often than their
    neighbours."""

    kind: Literal["normal"] = "normal"
    mean: float
    """Mean length before clamping."""
    std: Annotated[float, Field(gt=0.0)]
    """Standard deviation of the length before clamping."""


class TruncatedNormalLengths(BoundedLengths):
    """Normal distribution restricted to `min … max` and rounded, drawn for each block of each clip, as in the official
    recipe."""

    kind: Literal["truncated_normal"] = "truncated_normal"
    mean: float
    """Mean of the normal distribution, in latents."""
    std: Annotated[float, Field(gt=0.0)]
    """Standard deviation of the normal distribution, in latents."""

    @property
    def probabilities(self) -> tuple[float, float]:
        """Probabilities that the normal distribution is below `min` and below `max`."""
        normal = NormalDist(self.mean, self.std)
        return normal.cdf(self.min), normal.cdf(self.max)

    @model_validator(mode="after")
    def _check_probability(self) -> TruncatedNormalLengths:
        below, up_to = self.probabilities
        if self.min < self.max and up_to - below < MIN_PROBABILITY:
            raise ValueError(
                f"lengths: a normal distribution of mean {self.mean:g} and std {self.std:g} is almost never between min"
                f" {self.min} and max {self.max}; choose a mean between them, or a larger std"
            )
        return self


class FixedLengths(Config):
    """The same length for every block of every clip."""

    kind: Literal["fixed"] = "fixed"
    length: Positive
    """Number of latents of each block."""

    @property
    def max(self) -> int:
        """Largest length, for symmetry with the other distributions."""
        return self.length


class AllocatedLengths(Config):
    """Lengths that an allocation gave to whole clips, one of which is drawn for each clip.

    Training on them makes a decoder good at the lengths that it will get. As one component of a mixture, with uniform
    lengths as the other, it keeps the decoder good at all of them.
    """

    kind: Literal["allocated"] = "allocated"
    patterns: Annotated[tuple[tuple[Annotated[int, Field(ge=0)], ...], ...], Field(min_length=1)]
    """Recorded lengths of the blocks of clips, such as the lengths of a token dataset. Those after the last block of a
    shorter clip are the last one again."""

    @property
    def max(self) -> int:
        """Largest recorded length."""
        return max(length for pattern in self.patterns for length in pattern)

    @model_validator(mode="after")
    def _check_patterns(self) -> AllocatedLengths:
        if not all(self.patterns):
            raise ValueError("lengths: a pattern without lengths; give the length of each block of a clip")
        return self


SimpleLengths = Annotated[
    UniformLengths | NormalLengths | TruncatedNormalLengths | FixedLengths | AllocatedLengths,
    Field(discriminator="kind"),
]


class MixtureLengths(Config):
    """Mixture of distributions, one of which is drawn for each clip."""

    kind: Literal["mixture"] = "mixture"
    components: Annotated[
        tuple[SimpleLengths, ...], Field(min_length=1, validation_alias=AliasChoices("components", "laws"))
    ]
    """Distributions to choose from."""
    weights: tuple[Annotated[float, Field(ge=0.0)], ...]
    """Relative probability of each component. The weights need not sum to 1."""

    @property
    def max(self) -> int:
        """Largest length of any component."""
        return max(component.max for component in self.components)

    @model_validator(mode="after")
    def _check(self) -> MixtureLengths:
        if len(self.weights) != len(self.components) or sum(self.weights) <= 0:
            raise ValueError(
                f"lengths: {len(self.weights)} weights for {len(self.components)} components; give one weight for each"
                " component, not all 0"
            )
        return self


LengthDistribution = Annotated[
    UniformLengths | NormalLengths | TruncatedNormalLengths | FixedLengths | AllocatedLengths | MixtureLengths,
    Field(discriminator="kind"),
]
