"""Configuration of discriminators and their training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from adaptok.config.base import Config, Count, Depth, Fraction01, Positive
from adaptok.config.transformer import TransformerConfig


class DiscriminatorTrainingConfig(Config):
    """Training of a discriminator of any kind, and the weight of its loss in the tokenizer's objective."""

    loss: Literal["non_saturating", "hinge"] = "non_saturating"
    """Adversarial objective: 'non_saturating' is the cross-entropy with noisy one-sided labels, 'hinge' is the hinge
    loss, which has no labels."""
    adaptive: bool = False
    """Rescale the adversarial gradient with respect to the reconstructed clips, at every step, to losses.adversarial
    times the norm of the gradient of all other reconstruction losses."""
    lr: Annotated[float, Field(gt=0.0, validation_alias=AliasChoices("lr", "learning_rate"))] = 3e-5
    """Peak learning rate of the discriminator's Adam optimizer."""
    follow_schedule: bool = False
    """Multiply the learning rate by the warm-up and the schedule of `optimizer`, as in the official recipe. Otherwise,
    it is constant."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Decay of Adam's moving averages of the gradient and of its square."""
    update_interval: Annotated[Positive, Field(validation_alias=AliasChoices("update_interval", "every"))] = 5
    """Number of training steps per update of the discriminator."""
    update_first: bool = False
    """Update the discriminator before the tokenizer, in the last of every `update_interval` steps, so that the
    adversarial loss of that step is that of the updated discriminator, as in the official recipe. Costs one more
    reconstruction without gradients per update. Otherwise, both are updated together, in the first of every
    `update_interval` steps."""
    real_noise: Annotated[float, Field(ge=0.0)] = 0.15
    """Noise of the labels of real clips with the loss 'non_saturating': 1 - real_noise * |normal|."""
    real_min: Annotated[Fraction01, Field(validation_alias=AliasChoices("real_min", "real_least"))] = 0.7
    """Minimum label of a real clip with the loss 'non_saturating'."""
    fake_noise: Annotated[float, Field(ge=0.0)] = 0.15
    """Noise of the labels of reconstructed clips with the loss 'non_saturating': fake_noise * |normal|."""
    fake_max: Annotated[Fraction01, Field(validation_alias=AliasChoices("fake_max", "fake_most"))] = 0.3
    """Maximum label of a reconstructed clip with the loss 'non_saturating'."""
    lecam: Annotated[float, Field(ge=0.0)] = 0.001
    """Weight of the LeCam regularization (arXiv 2104.03310), with either loss."""
    lecam_of: Literal["logits", "means"] = "logits"
    """What LeCam regularization compares with the moving averages: each of the 'logits', or their 'means' over all
    clips and processes, as in the official recipe."""
    lecam_decay: Fraction01 = 0.999
    """Decay of the moving averages of the logits that LeCam regularization compares with."""


class TransformerDiscriminatorConfig(TransformerConfig, DiscriminatorTrainingConfig):
    """Transformer that distinguishes real from reconstructed clips, with one logit per clip."""

    kind: Literal["transformer"] = "transformer"
    """Type of the discriminator."""
    width: Count = 512
    """Number of dimensions of the rows between blocks."""
    depth: Depth = 12
    """Number of blocks."""
    heads: Count = 8
    """Number of attention heads. It divides the width."""
    patch_size: Count = 8
    """Side of the discriminator's patches in pixels. It divides the side of a frame."""
    temporal_patch_size: Count = 4
    """Number of frames of the discriminator's patches. It divides the frames of a clip."""
    norm_eps: Annotated[float, Field(gt=0.0)] = 1e-5
    """Epsilon of the final LayerNorm. The official one is 1e-6."""
    center_input: bool = True
    """Scale pixels from [0, 1] to [-1, 1]. The official discriminator reads them as they are."""


class PatchDiscriminatorConfig(DiscriminatorTrainingConfig):
    """Convolutional discriminator of real and reconstructed clips, with one logit per patch in space and time."""

    kind: Literal["patch"] = "patch"
    """Type of the discriminator."""
    channels: Count = 32
    """Number of output channels of the first layer, a multiple of 8. Each further layer has twice as many."""
    max_channels: Count = 256
    """Maximum number of channels of a layer, a multiple of 8."""
    layers: Depth = 3
    """Number of layers. Each one halves the resolution, so clips of 128 pixels have 16 x 16 patches with 3 layers."""
    temporal_layers: Annotated[int, Field(ge=0)] = 2
    """Number of layers, from the first, that also halve the number of frames."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of output channels of every layer."""
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
    """Add the kind to configurations that were written when transformers were the only one."""
    return {"kind": "transformer", **values} if isinstance(values, Mapping) else values


DiscriminatorConfig = Annotated[
    TransformerDiscriminatorConfig | PatchDiscriminatorConfig,
    Field(discriminator="kind"),
    BeforeValidator(_default_to_transformer),
]
