"""Objectives of the stages: modules that turn a batch into a loss.

Legend: `B` clips, `C` channels, `T` frames, `S` pixels; `g` blocks of the clips given, `K` latents of a block, `L`
candidate lengths; `N` packed positions that a generator reads, `M` entries that it predicts, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptok.codec.length_selection import measure_cumulative
from adaptok.config.lengths import (
    AllocatedLengths,
    LengthDistribution,
    MixtureLengths,
    NormalLengths,
    SimpleLengths,
    TruncatedNormalLengths,
    UniformLengths,
)
from adaptok.config.losses import RECONSTRUCTION_TERMS, LpipsLossConfig
from adaptok.config.training import TrainingConfig
from adaptok.metrics.distortion import candidate_distortion, psnr
from adaptok.metrics.similarity import frame_ssim
from adaptok.models.digits import DigitHead
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.models.prior import select_kept
from adaptok.models.quantizer import Quantized, VectorQuantizer
from adaptok.models.spectrum_scorer import SpectrumScorer
from adaptok.models.tokenizer_plans import kept_mask
from adaptok.training.adversarial import adaptive_loss
from adaptok.training.codebook import codebook_metrics, count_ids
from adaptok.training.losses import LpipsNetworks, PixelErrors, border_loss, frequency_loss, perceptual_loss
from adaptok.training.sequences import PackedSequences

AdversarialTerm = Callable[[Tensor], Tensor]
"""Maps reconstructed clips `[B, C, T, S, S]` to a scalar adversarial loss."""


class LossOutput(NamedTuple):
    """Result of an objective."""

    loss: Tensor
    """Scalar to minimize."""
    metrics: dict[str, Tensor]
    """Detached scalars to log, by name."""
    reconstructions: Tensor | None = None
    """Detached reconstructed clips for the discriminator, where there are any."""


@dataclass(frozen=True)
class StepContext:
    """Position of a step in the run, its random numbers, and the adversarial loss while it is switched on."""

    step: int
    """Number of optimizer steps before this one."""
    progress: float
    """Fraction of the run before this step, in [0, 1)."""
    cpu_generator: torch.Generator
    """Random numbers drawn on the CPU, such as lengths and crops."""
    device_generator: torch.Generator
    """Random numbers drawn on the device of the model, such as sampled ids."""
    adversarial: AdversarialTerm | None = None
    reconstruct_only: bool = False
    """Reconstruct clips without computing losses, for an update of the discriminator alone."""

    @classmethod
    def seeded(
        cls,
        seed: int,
        device: torch.device | str = "cpu",
        step: int = 0,
        progress: float = 0.0,
        adversarial: AdversarialTerm | None = None,
    ) -> StepContext:
        """Create a context whose random numbers are a function of `seed`."""
        cpu, other = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
        return cls(step, progress, cpu, other, adversarial)


class Objective(nn.Module):
    """Module that turns a batch and a `StepContext` into a `LossOutput`."""

    def trained_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Yield the parameters that the stage trains, with their names in the model."""
        raise NotImplementedError


def draw_lengths(
    distribution: LengthDistribution, clips: int, blocks: int, generator: torch.Generator
) -> list[list[int]]:
    """Draw a length for each block of each clip. The first block of a clip keeps at least one latent.

    Args:
        distribution: distribution of the lengths. A component of a mixture is drawn once for each clip.
        clips: number of clips.
        blocks: number of blocks of a clip.
        generator: random numbers on the CPU.
    """
    if isinstance(distribution, MixtureLengths):
        weights = torch.tensor(distribution.weights)
        chosen = torch.multinomial(weights, clips, replacement=True, generator=generator)
        rows = [_draw_simple(distribution.components[int(index)], 1, blocks, generator) for index in chosen]
        lengths = torch.cat(rows)
    else:
        lengths = _draw_simple(distribution, clips, blocks, generator)
    lengths[:, 0].clamp_(min=1)
    return lengths.tolist()


def _draw_simple(distribution: SimpleLengths, clips: int, blocks: int, generator: torch.Generator) -> Tensor:
    if isinstance(distribution, UniformLengths):
        return torch.randint(distribution.min, distribution.max + 1, (clips, blocks), generator=generator)
    if isinstance(distribution, NormalLengths):
        normal = torch.randn(clips, blocks, generator=generator) * distribution.std + distribution.mean
        return normal.round().long().clamp(distribution.min, distribution.max)
    if isinstance(distribution, TruncatedNormalLengths):  # by inverting the distribution function
        low, high = distribution.probabilities
        uniform = low + (high - low) * torch.rand(clips, blocks, generator=generator, dtype=torch.float64)
        normal = distribution.mean + distribution.std * torch.special.ndtri(uniform)
        return normal.clamp(distribution.min, distribution.max).round().long()
    if isinstance(distribution, AllocatedLengths):
        patterns = torch.tensor([[*p[:blocks], *[p[-1]] * (blocks - len(p))] for p in distribution.patterns])
        return patterns[torch.randint(len(patterns), (clips,), generator=generator)]
    return torch.full((clips, blocks), distribution.length)


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
        if context.reconstruct_only:
            return LossOutput(prediction.new_zeros(()), {}, prediction.detach())
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
        kept = kept_mask(lengths, tokenizer.config.latents, quantized.ids.device)
        metrics |= codebook_metrics(count_ids(quantized.ids[kept], tokenizer.config.quantizer.codebook_size))
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


CANDIDATE_CLIPS = 16
"""Clips whose candidate lengths are decoded at once. At the official size, each takes up to 5,900 rows."""


class ScorerTargets(NamedTuple):
    """Distortions of one block of each clip, and what the scorer reads to predict them."""

    features: Tensor
    """Features `[B, G, ...]` of the blocks of the clips; see `BaseScorer.features`. With the target "block", the scored
    one is the last."""
    inputs: Tensor
    """Decoder inputs `[B, G, K, D]` of the same blocks."""
    lengths: list[list[int]]
    """Lengths of the blocks of each clip up to the scored one, which is whole."""
    columns: Tensor
    """Indices `[n]` of the candidate lengths that were measured."""
    distortions: Tensor
    """Distortions `[B, n]`, of the scored block or of all blocks from it on (`scorer.target`)."""


class ScorerObjective(Objective):
    """Prediction of the distortion of a random block at candidate lengths, given the blocks before it at random
    lengths. With the target "cumulative", it is the mean distortion of that block and all later ones of the clip.

    The tokenizer is frozen; the true distortions are measured by decoding.
    """

    def __init__(self, model: Model, config: TrainingConfig, networks: LpipsNetworks) -> None:
        super().__init__()
        assert model.scorer is not None
        self.model, self.config, self.networks, self.scorer = model, config, networks, model.scorer
        model.tokenizer.requires_grad_(False)

    def trained_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Yield the parameters of the scorer."""
        return (item for item in self.model.named_parameters() if item[0].startswith("scorer."))

    def forward(self, clips: Tensor, context: StepContext) -> LossOutput:
        """Compute the loss of clips `[B, C, T, S, S]` in [0, 1]."""
        block = int(torch.randint(self.model.tokenizer.config.blocks, (), generator=context.cpu_generator))
        targets = self.measure(clips, block, context.cpu_generator)
        scores = self._scores(targets, context.cpu_generator)[:, block, targets.columns]
        error = scores - self.scorer.normalize(targets.distortions)
        level = error.mean(1, keepdim=True)  # of the curve of each clip
        loss = self.config.level_weight * level.square().mean() + (error - level).square().mean()
        ratio = self.scorer.denormalize(scores.detach()) / targets.distortions.clamp(min=1e-8)
        shape = ratio / ratio.log().mean(1, keepdim=True).exp()
        metrics = {"relative_error": (ratio - 1).abs().mean(), "shape_error": (shape - 1).abs().mean()}
        return LossOutput(loss, metrics)

    @torch.no_grad()
    def measure(self, clips: Tensor, block: int, generator: torch.Generator) -> ScorerTargets:
        """Draw lengths, and measure the distortions that the scorer predicts for block `block` of each clip.

        The candidate lengths are all of them, or `config.scored_candidates` drawn ones. For the target "cumulative",
        all clips have the same lengths, and the blocks after `block` have the same ones at every candidate.
        """
        tokenizer, pt = self.model.tokenizer, self.model.tokenizer.config.temporal_patch_size
        cumulative = self.scorer.config.target == "cumulative"
        lengths = draw_lengths(self.config.lengths, 1 if cumulative else len(clips), tokenizer.config.blocks, generator)
        columns = self._draw_columns(generator)
        candidates = [(column + 1) * self.scorer.config.length_step for column in columns.tolist()]
        if not cumulative:
            clips = clips[:, :, : (block + 1) * pt]
        encoded = tokenizer.encode(clips)
        inputs = tokenizer.project_codes(tokenizer.quantize(encoded).codes)
        if cumulative:
            kind, lpips = self.scorer.config.distortion, self.networks.lpips
            distortions = measure_cumulative(tokenizer, clips, inputs, lengths[0], block, candidates, kind, lpips)
            lengths = lengths * len(clips)
        else:
            distortions = self.measure_distortions(clips, inputs, [clip[:block] for clip in lengths], candidates)
        known = [[*clip[:block], tokenizer.config.latents] for clip in lengths]
        features = self.scorer.features(clips, encoded)
        return ScorerTargets(features, inputs, known, columns, distortions)

    def _scores(self, targets: ScorerTargets, generator: torch.Generator) -> Tensor:
        """Score the blocks up to the last one of `targets.lengths`: `[B, g, L]`."""
        blocks = len(targets.lengths[0])
        inputs = targets.inputs[:, :blocks]
        if isinstance(self.scorer, SpectrumScorer):  # half of the time, it also sees later blocks
            lookahead = bool(torch.randint(2, (), generator=generator))
            return self.scorer(targets.features, inputs, targets.lengths, lookahead=lookahead)
        return self.scorer(targets.features[:, :blocks], inputs, targets.lengths)

    def _draw_columns(self, generator: torch.Generator) -> Tensor:
        count = self.model.tokenizer.config.latents // self.scorer.config.length_step
        if self.config.scored_candidates is None or self.config.scored_candidates >= count:
            return torch.arange(count)
        return torch.randperm(count, generator=generator)[: self.config.scored_candidates].sort().values

    def measure_distortions(
        self, clips: Tensor, inputs: Tensor, earlier: Sequence[Sequence[int]], candidates: Sequence[int]
    ) -> Tensor:
        """Measure the distortion of the last block of `clips` at several lengths.

        Args:
            clips: `[B, C, T, S, S]` in [0, 1].
            inputs: `[B, g, K, D]` decoder inputs of its blocks.
            earlier: lengths of each clip's blocks before the last.
            candidates: n lengths of the last block, at least 1.

        Returns:
            `[B, n]` distortions.
        """
        tokenizer, config = self.model.tokenizer, self.scorer.config
        target = clips[:, :, -tokenizer.config.temporal_patch_size :]
        distortions = []
        for start in range(0, len(clips), CANDIDATE_CLIPS):
            some = slice(start, start + CANDIDATE_CLIPS)
            decoded = tokenizer.decode_candidates(inputs[some], earlier[some], candidates)  # [B, n, C, pt, S, S]
            decoded = decoded.float().clamp(0, 1)
            distortions.append(candidate_distortion(decoded, target[some], config.distortion, self.networks.lpips))
        return torch.cat(distortions)


CHUNK = 256
"""Entries whose logits are computed at once, because those of a whole batch may not fit into memory."""


class GeneratorObjective(Objective):
    """Cross-entropy of every id and end-of-block token, given everything before it."""

    def __init__(self, model: GeneratorModel) -> None:
        super().__init__()
        self.model = model

    def trained_parameters(self) -> Iterable[tuple[str, nn.Parameter]]:
        """Yield all parameters of the generator."""
        return self.model.named_parameters()

    def forward(self, sequences: PackedSequences, context: StepContext) -> LossOutput:
        """Compute the loss of packed sequences, weighted by their number of entries."""
        mean = self.losses(self.hidden_states(sequences), sequences.targets).mean()
        entries = mean.new_tensor(float(len(sequences.targets)))
        return LossOutput(mean * sequences.weight, {"entries": entries})

    def hidden_states(self, sequences: PackedSequences) -> Tensor:
        """Compute the inputs `[M, D]` of the output layer."""
        model = self.model
        x = model.tokens(sequences.ids)  # [N, D]
        if sequences.class_positions is not None:
            assert model.classes is not None
            x = x.index_copy(0, sequences.class_positions, model.classes(sequences.classes))
        x = model.run(x, sequences.lengths, sequences.positions)
        return model.norm(x if sequences.predict_at is None else x[sequences.predict_at])

    def losses(self, hidden_states: Tensor, targets: Tensor) -> Tensor:
        """Compute the cross-entropies `[M]` in nats."""
        head = self.model.output
        if isinstance(head, DigitHead):
            return -head.log_likelihood(hidden_states, targets)
        return F.cross_entropy(head(hidden_states).float(), targets, reduction="none")


@torch.inference_mode()
def most_likely(model: GeneratorModel, hidden_states: Tensor) -> Tensor:
    """Return the most likely entry, int64 `[M]`, for each of `hidden_states [M, D]`."""
    return torch.cat([model.output(chunk).argmax(-1) for chunk in hidden_states.split(CHUNK)])
