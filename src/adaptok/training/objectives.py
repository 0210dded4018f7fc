"""What each stage minimises. An objective is a module: a batch of clips in, a loss and metrics out.

Legend: `B` clips, `G` blocks, `K` latents of a block, `L` candidate lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adaptok.codec.length_selection import measure_block
from adaptok.config.lengths import (
    FixedLengths,
    LengthDistribution,
    MixtureLengths,
    NormalLengths,
    UniformLengths,
)
from adaptok.config.losses import RECONSTRUCTION_TERMS, LpipsLossConfig
from adaptok.config.training import TrainingConfig
from adaptok.metrics.distortion import psnr
from adaptok.metrics.lpips import DOWNLOAD, PUBLISHED, Lpips, Network, clip_lpips
from adaptok.metrics.similarity import frame_ssim
from adaptok.models.model import Model
from adaptok.models.prior import select_kept
from adaptok.models.quantizer import VectorQuantizer
from adaptok.models.tokenizer import kept_mask
from adaptok.training.losses import PixelErrors, adaptive_loss, border_loss, frequency_loss

ENCODER_PARTS = tuple(
    f"tokenizer.{name}" for name in ("patch_embedding.", "stem.", "encoder_", "encoder.", "to_code.", "quantizer.")
)
"""Prefixes of the parameters that token ids depend on."""
Maker = Callable[[Tensor], Tensor]


class Outcome(NamedTuple):
    """`loss` is minimised; `metrics` are logged; `prediction` are the clips that were made, where there are any."""

    loss: Tensor
    metrics: dict[str, Tensor]
    prediction: Tensor | None = None


class Draw(NamedTuple):
    """Randomness of a step: on the CPU, and on the model's device."""

    cpu: torch.Generator
    device: torch.Generator


def draw_lengths(law: LengthDistribution, clips: int, blocks: int, generator: torch.Generator) -> list[list[int]]:
    """Lengths of every clip and block from a law; the first block keeps at least one latent."""
    if isinstance(law, MixtureLengths):
        chosen = torch.multinomial(torch.tensor(law.weights), clips, replacement=True, generator=generator)
        lengths = torch.cat([_draw_simple(law.components[int(index)], 1, blocks, generator) for index in chosen])
    else:
        lengths = _draw_simple(law, clips, blocks, generator)
    lengths[:, 0].clamp_(min=1)
    return lengths.tolist()


def _draw_simple(
    law: UniformLengths | NormalLengths | FixedLengths, clips: int, blocks: int, generator: torch.Generator
) -> Tensor:
    if isinstance(law, UniformLengths):
        return torch.randint(law.min, law.max + 1, (clips, blocks), generator=generator)
    if isinstance(law, NormalLengths):
        normal = torch.randn(clips, blocks, generator=generator) * law.std + law.mean
        return normal.round().long().clamp(law.min, law.max)
    return torch.full((clips, blocks), law.length)


class Measures(NamedTuple):
    """Networks that measure distortion, and are not trained. None where one is not asked for."""

    lpips: Lpips | None = None
    lpips_alex: Lpips | None = None

    @classmethod
    def load(cls, config: TrainingConfig, device: torch.device) -> Measures:
        """What a configuration's losses, or its scorer's target, need.

        Raises:
            ValueError: LPIPS is asked for, and its weights are not given, or are not the published ones.
            FileNotFoundError: there is no such file.
        """
        if (reason := missing_weights(config)) is not None:
            raise ValueError(reason)
        vgg, alex = (
            Lpips.from_file(path, network).to(device) if path is not None and reason is not None else None
            for network, path, reason in zip(_NETWORKS, _weight_files(config), needs_lpips(config), strict=True)
        )
        return cls(vgg, alex)


_NETWORKS: tuple[Network, Network] = ("vgg", "alex")


def _weight_files(config: TrainingConfig) -> tuple[str | None, str | None]:
    return config.lpips_weights, config.lpips_alex_weights


def needs_lpips(config: TrainingConfig) -> tuple[str | None, str | None]:
    """Return why a configuration needs the weights of VGG16 and of AlexNet, with the remedy if they are missing; None
    for each that it does not need."""
    give = [
        f"give --{flag} {PUBLISHED[network]} (from {DOWNLOAD})" for flag, network in zip(_FLAGS, _NETWORKS, strict=True)
    ]
    if config.stage == "scorer":
        assert config.model.scorer is not None
        if config.model.scorer.distortion != "lpips":
            return None, None
        return (
            f"model.scorer.distortion lpips needs the weights of VGG16: {give[0]}, or choose mse, l1, multiscale or"
            " dssim",
            None,
        )
    vgg, alex = (loss.weight for loss in (config.losses.lpips, config.losses.lpips_alex))
    return (
        f"losses.lpips {vgg:g} needs the weights of VGG16: {give[0]},"
        " or train without it: --losses.lpips.weight 0 --losses.frequency 1"
        if vgg
        else None,
        f"losses.lpips_alex {alex:g} needs the weights of AlexNet: {give[1]},"
        " or train without it: --losses.lpips-alex.weight 0"
        if alex
        else None,
    )


_FLAGS = ("lpips-weights", "lpips-alex-weights")


def missing_weights(config: TrainingConfig) -> str | None:
    """Return which LPIPS weights a configuration needs but does not name, with the remedy, or None."""
    needed = zip(needs_lpips(config), _weight_files(config), strict=True)
    return next((reason for reason, path in needed if reason is not None and path is None), None)


def perceptual_loss(
    lpips: Lpips, config: LpipsLossConfig, prediction: Tensor, target: Tensor, generator: torch.Generator
) -> Tensor:
    """Compute the mean LPIPS of reconstructions on random frames and crops.

    Args:
        lpips: the network.
        config: number of frames and size of the crop.
        prediction, target: `[B, 3, T, S, S]` in [0, 1].
        generator: draws frames and crops for each clip; on the CPU.
    """
    b, _, t, height, width = target.shape
    frames = min(config.frames or t, t)
    side = min(config.crop or height, height)
    made: list[Tensor] = []
    true: list[Tensor] = []
    for clip in range(b):
        chosen = torch.randperm(t, generator=generator)[:frames].sort().values.to(target.device)
        top, left = (int(torch.randint(size - side + 1, (), generator=generator)) for size in (height, width))
        for source, part in ((prediction, made), (target, true)):
            square = source[clip, :, :, top : top + side, left : left + side]
            part.append(square.index_select(1, chosen))
    return clip_lpips(lpips, torch.stack(made), torch.stack(true)).mean()


class TokenizerObjective(nn.Module):
    """Reconstruction from rows of random lengths, plus the losses of the quantizer, the prior and an adversary."""

    def __init__(self, model: Model, config: TrainingConfig, measures: Measures) -> None:
        super().__init__()
        self.model, self.config, self.measures = model, config, measures
        trained = dict(self.trained())
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)

    def trained(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Named parameters that this stage changes."""
        halves = self.config.trainable
        for name, parameter in self.model.named_parameters():
            half = "encoder" if name.startswith(ENCODER_PARTS) else "decoder"
            if not name.startswith("scorer.") and half in halves:
                yield name, parameter

    def forward(self, clips: Tensor, draw: Draw, step: int, progress: float, maker: Maker | None = None) -> Outcome:
        """The loss of a batch.

        Args:
            clips: `[B, C, T, S, S]` in [0, 1].
            step, progress: of the run; progress in [0, 1).
            maker: gives the adversarial loss of clips.
        """
        tokenizer, losses = self.model.tokenizer, self.config.losses
        lengths = draw_lengths(self.config.lengths, clips.shape[0], tokenizer.config.blocks, draw.cpu)
        prediction, quantized = tokenizer(clips, lengths, generator=draw.device, sample=True)
        adaptive = maker is not None and self.config.discriminator.adaptive
        made = prediction.detach().requires_grad_() if adaptive else prediction
        absolute, mse = PixelErrors.apply(made, clips)
        terms = {
            "l1": absolute.mean(),
            "mse": mse.mean(),
            "quantizer": tokenizer.quantizer.loss(quantized),
        }
        if losses.dssim:
            terms["dssim"] = 1 - frame_ssim(made, clips).mean()
        for name, lpips in zip(("lpips", "lpips_alex"), self.measures, strict=True):
            settings: LpipsLossConfig = getattr(losses, name)
            if settings.weight:
                assert lpips is not None
                terms[name] = perceptual_loss(lpips, settings, made, clips, draw.cpu)
        if losses.frequency:
            terms["frequency"] = frequency_loss(made, clips)
        if losses.borders:
            terms["borders"] = border_loss(made, clips, tokenizer.config.patch_size)
        if maker is not None:
            terms["adversarial"] = maker(made)
        if self.model.prior is not None:
            kept = kept_mask(lengths, tokenizer.config.latents, clips.device).flatten(1)
            assert isinstance(tokenizer.quantizer, VectorQuantizer)
            row = select_kept(quantized.codes.flatten(1, 2), quantized.ids.flatten(1), kept)
            share = self.model.prior.replaced_fraction(progress)
            terms["prior"] = self.model.prior.loss(
                row, tokenizer.quantizer.codebook, replaced=share, generator=draw.device
            )
        metrics = {name: term.detach() for name, term in terms.items()}
        metrics["psnr"] = psnr(mse.detach().clamp(max=1)).mean()
        weighted = {name: losses.weight(name, step) * term for name, term in terms.items()}
        if adaptive:
            others = sum((weighted.pop(n) for n in RECONSTRUCTION_TERMS if n in terms), clips.new_zeros(()))
            weighted["adversarial"], metrics["adversarial_weight"] = adaptive_loss(
                prediction, made, others, terms["adversarial"], losses.weight("adversarial", step)
            )
        loss = sum(weighted.values(), clips.new_zeros(()))
        return Outcome(loss, metrics, prediction.detach())


class ScorerObjective(nn.Module):
    """Predict the distortion of a random block at every candidate length, given earlier blocks at random lengths.

    The tokenizer is frozen; distortions are measured on what it decodes.
    """

    def __init__(self, model: Model, config: TrainingConfig, measures: Measures) -> None:
        super().__init__()
        assert model.scorer is not None
        self.model, self.config, self.measures, self.scorer = model, config, measures, model.scorer
        model.tokenizer.requires_grad_(False)

    def trained(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Named parameters that this stage changes."""
        return (item for item in self.model.named_parameters() if item[0].startswith("scorer."))

    def forward(self, clips: Tensor, draw: Draw, step: int, progress: float, maker: Maker | None = None) -> Outcome:
        """The loss of a batch `clips [B, C, T, S, S]` in [0, 1]; the rest is as for the tokenizer, and not used."""
        tokenizer = self.model.tokenizer
        block = int(torch.randint(tokenizer.config.blocks, (), generator=draw.cpu))
        earlier = draw_lengths(self.config.lengths, 1, tokenizer.config.blocks, draw.cpu)[0][:block]
        with torch.no_grad():
            clips = clips[:, :, : (block + 1) * tokenizer.config.temporal_patch_size]
            encoded = tokenizer.encode(clips)
            inputs = tokenizer.project_codes(tokenizer.quantize(encoded).codes)
            distortions = self.distortions(clips, inputs, earlier)
            target = self.scorer.normalize(distortions)
        lengths = [[*earlier, tokenizer.config.latents]] * clips.shape[0]
        scores = self.scorer(encoded, inputs, lengths)[:, block]
        error = scores - target
        relative = (self.scorer.denormalize(scores.detach()) / distortions.clamp(min=1e-8) - 1).abs()
        return Outcome(error.square().mean(), {"relative_error": relative.mean()})

    def distortions(self, clips: Tensor, inputs: Tensor, earlier: list[int]) -> Tensor:
        """True distortions `[B, L]` of the last block of `clips` at every candidate length.

        Args:
            inputs: `[B, g, K, D]` decoder inputs of its blocks.
            earlier: lengths of the blocks before the last, the same for all clips.
        """
        tokenizer, config = self.model.tokenizer, self.scorer.config
        target = clips[:, :, len(earlier) * tokenizer.config.temporal_patch_size :]
        lengths = range(config.length_step, tokenizer.config.latents + 1, config.length_step)
        return measure_block(tokenizer, target, inputs, earlier, lengths, config.distortion, self.measures.lpips)
