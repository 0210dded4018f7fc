"""Configuration of the losses that a tokenizer is trained with."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, Field, model_validator

from adaptok.config.base import Config, Positive

RECONSTRUCTION_TERMS = ("l1", "mse", "lpips", "lpips_alex", "dssim", "frequency", "borders")
"""Terms of the tokenizer's loss that compare reconstructed clips with the originals."""
TERMS = (*RECONSTRUCTION_TERMS, "quantizer", "prior", "adversarial")
"""All terms of the tokenizer's loss."""
Weight = Annotated[float, Field(ge=0.0)]


class LpipsLossConfig(Config):
    """LPIPS loss: its weight, and the part of each clip it is computed on. A plain number is read as the weight."""

    weight: Weight = 0.0
    """Weight of the mean over the frames used. 0 disables the loss."""
    frames: Positive | None = None
    """Number of frames per clip, drawn at random at each step. All frames by default."""
    crop: Annotated[int, Field(ge=16)] | None = None
    """Side of the random square crop of the frames, in pixels. Whole frames by default."""

    @model_validator(mode="before")
    @classmethod
    def _accept_number(cls, value: Any) -> Any:
        return {"weight": value} if isinstance(value, int | float | str) else value


class TokenizerLossConfig(Config):
    """Weights of the terms of the tokenizer's loss."""

    l1: Weight = 1.0
    """Weight of the mean absolute error of pixels in [0, 1]."""
    mse: Weight = 0.0
    """Weight of the mean squared error of pixels in [0, 1]."""
    lpips: LpipsLossConfig = LpipsLossConfig()
    """LPIPS loss with VGG16. Needs `lpips_weights`."""
    lpips_alex: LpipsLossConfig = LpipsLossConfig()
    """LPIPS loss with AlexNet, which takes about a twentieth of the FLOPs of VGG16. Needs `lpips_alex_weights`."""
    dssim: Weight = 0.0
    """Weight of 1 - SSIM (structural similarity). Needs no downloaded weights."""
    frequency: Weight = 0.0
    """Weight of the distance between the spectra of frames. Needs no downloaded weights."""
    borders: Weight = 0.0
    """Weight of the mean absolute error of differences across patch borders, which penalizes a visible grid."""
    quantizer: Weight = 0.1
    """Weight of the commitment and codebook losses of a vector quantizer. A scalar quantizer has none."""
    prior: Weight = 0.06
    """Weight of the cross-entropy of token ids under the prior, for models that have one."""
    adversarial: Weight = 0.0
    """Weight of the adversarial loss. 0 disables the discriminator. With `discriminator.adaptive`, it is relative to
    the reconstruction losses."""
    start_steps: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, validation_alias=AliasChoices("start_steps", "start")
    )
    """Training step at which a term is switched on, by name. Terms that are not listed count from the first step."""

    @model_validator(mode="after")
    def _check(self) -> TokenizerLossConfig:
        if unknown := sorted(self.start_steps.keys() - set(TERMS)):
            raise ValueError(f"losses.start_steps names {unknown[0]!r}; expected one of {', '.join(TERMS)}")
        return self

    def weight(self, term: str, step: int) -> float:
        """Return the weight of a term at a step, which is 0 before the term is switched on."""
        return self.full_weight(term) if step >= self.start_steps.get(term, 0) else 0.0

    def full_weight(self, term: str) -> float:
        """Return the weight of a term once it is switched on."""
        value = getattr(self, term)
        weight: float = value.weight if isinstance(value, LpipsLossConfig) else value
        return weight
