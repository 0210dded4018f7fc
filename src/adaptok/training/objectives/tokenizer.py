"""Objective of the tokenizer.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from adaptok.config.losses import RECONSTRUCTION_TERMS, LpipsLossConfig
from adaptok.config.training import TrainingConfig
from adaptok.metrics.distortion import psnr
from adaptok.metrics.similarity import frame_ssim
from adaptok.models.model import Model
from adaptok.models.prior import select_kept
from adaptok.models.quantizer import Quantized, VectorQuantizer
from adaptok.models.tokenizer import kept_mask
from adaptok.training.adversarial import adaptive_loss
from adaptok.training.losses import PixelErrors, border_loss, frequency_loss
from adaptok.training.objectives.base import LossOutput, Objective, StepContext
from adaptok.training.objectives.lengths import draw_lengths
from adaptok.training.objectives.perceptual import LpipsNetworks, perceptual_loss

ENCODER_PREFIXES = tuple(
    f"tokenizer.{name}" for name in ("patch_embedding.", "stem.", "encoder_", "encoder.", "to_code.", "quantizer.")
)
"""Prefixes of the parameters that token ids depend on."""


class TokenizerObjective(Objective):
    """Reconstruction of clips from random numbers of tokens, plus the losses of the quantizer, the prior and the
    discriminator."""

    def __init__(self, model: Model, config: TrainingConfig, networks: LpipsNetworks) -> None:
        super().__init__()
        self.model, self.config, self.networks = model, config, networks
        trained = dict(self.trained_parameters())
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)

    def trained_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Yield the parameters of the halves of the tokenizer that the run trains."""
        for name, parameter in self.model.named_parameters():
            half = "encoder" if name.startswith(ENCODER_PREFIXES) else "decoder"
            if not name.startswith("scorer.") and half in self.config.trainable:
                yield name, parameter

    def forward(self, clips: Tensor, context: StepContext) -> LossOutput:
        """Compute the loss of clips `[B, C, T, S, S]` in [0, 1]."""
        tokenizer, losses, step = self.model.tokenizer, self.config.losses, context.step
        lengths = draw_lengths(self.config.lengths, len(clips), tokenizer.config.blocks, context.cpu_generator)
        prediction, quantized = tokenizer(clips, lengths, generator=context.device_generator, sample=True)
        adaptive = context.adversarial is not None and self.config.discriminator.adaptive
        # with an adaptive weight, the losses are differentiated with respect to the clips in adaptive_loss
        clips_out = prediction.detach().requires_grad_() if adaptive else prediction
        absolute, squared = PixelErrors.apply(clips_out, clips)
        terms = {"l1": absolute.mean(), "mse": squared.mean(), "quantizer": tokenizer.quantizer.loss(quantized)}
        terms |= self._similarity_terms(clips_out, clips, context.cpu_generator)
        if context.adversarial is not None:
            terms["adversarial"] = context.adversarial(clips_out)
        if self.model.prior is not None:
            terms["prior"] = self._prior_term(quantized, lengths, context)
        metrics = {name: term.detach() for name, term in terms.items()}
        metrics["psnr"] = psnr(squared.detach().clamp(max=1)).mean()
        weighted = {name: losses.weight(name, step) * term for name, term in terms.items()}
        if adaptive:
            others = sum((weighted.pop(name) for name in RECONSTRUCTION_TERMS if name in terms), clips.new_zeros(()))
            weighted["adversarial"], metrics["adversarial_weight"] = adaptive_loss(
                prediction, clips_out, others, terms["adversarial"], losses.weight("adversarial", step)
            )
        loss = sum(weighted.values(), clips.new_zeros(()))
        return LossOutput(loss, metrics, prediction.detach())

    def _similarity_terms(self, prediction: Tensor, clips: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        losses, terms = self.config.losses, {}
        if losses.dssim:
            terms["dssim"] = 1 - frame_ssim(prediction, clips).mean()
        for name, lpips in self.networks._asdict().items():
            settings: LpipsLossConfig = getattr(losses, name)
            if settings.weight:
                assert lpips is not None
                terms[name] = perceptual_loss(lpips, settings, prediction, clips, generator)
        if losses.frequency:
            terms["frequency"] = frequency_loss(prediction, clips)
        if losses.borders:
            terms["borders"] = border_loss(prediction, clips, self.model.tokenizer.config.patch_size)
        return terms

    def _prior_term(self, quantized: Quantized, lengths: list[list[int]], context: StepContext) -> Tensor:
        prior, quantizer = self.model.prior, self.model.tokenizer.quantizer
        assert prior is not None
        assert isinstance(quantizer, VectorQuantizer)
        kept = kept_mask(lengths, self.model.tokenizer.config.latents, quantized.ids.device).flatten(1)
        sequence = select_kept(quantized.codes.flatten(1, 2), quantized.ids.flatten(1), kept)
        replaced = prior.replaced_fraction(context.progress)
        return prior.loss(sequence, quantizer.codebook, replaced=replaced, generator=context.device_generator)
