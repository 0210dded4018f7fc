"""Configuration of a model: a tokenizer, and optionally a scorer and a prior."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, model_validator

from adaptok.config.base import Config, Count, Depth, Fraction01, Positive
from adaptok.config.tokenizer import TokenizerConfig
from adaptok.config.transformer import TransformerConfig

Distortion = Literal["lpips", "mse", "l1", "dssim", "multiscale"]


class ScorerConfig(TransformerConfig):
    """Network that predicts the distortion of a block at every candidate length."""

    reads: Literal["latents", "spectrum"] = "latents"
    """What the network reads: a transformer reads latents, as in the official program; a small MLP reads the energy of
    the pixels in each frequency band, which costs almost nothing."""
    width: Count = 768
    """Number of dimensions of the rows between blocks, or of the hidden layers of an MLP."""
    depth: Depth = 12
    """Number of blocks of the stack, or of hidden layers of an MLP."""
    heads: Count = 12
    """Number of attention heads. It divides the width. An MLP has none."""
    length_step: Annotated[Positive, Field(validation_alias=AliasChoices("length_step", "step"))] = 64
    """Spacing of the candidate lengths in tokens: candidates are its multiples. It divides the latents of a block."""
    distortion: Distortion = "lpips"
    """Distortion that is predicted, as the mean over a block."""
    target: Literal["block", "cumulative"] = "block"
    """Blocks whose mean distortion is predicted: the scored block alone, as in the official program, or that block and
    all later ones of the clip, which also see its tokens."""
    scale: Literal["linear", "log"] = "linear"
    """Scale of the scorer's output: the normalized distortion, or the normalized logarithm of the distortion."""
    mean: float = 0.19749267
    """Mean of the distortion, or of its logarithm, over the training data. The default is the official one for
    LPIPS."""
    std: Annotated[float, Field(gt=0.0)] = 0.07615979
    """Standard deviation of the distortion, or of its logarithm. The default is the official one for LPIPS."""
    curve: tuple[tuple[float, ...], ...] = ()
    """Mean normalized score of each block of a clip at each candidate length, to which the network adds the deviation
    of a clip. A scorer then starts from the mean curve, and needs fewer clips to learn. Empty is 0, as in the official
    program."""
    degree: Annotated[int, Field(ge=0)] | None = None
    """Degree of the polynomial in the logarithm of the length by which the scores of a block differ from `curve`: the
    outputs of the network at all candidate lengths are fitted by it. Rate-distortion curves are smooth, so a low degree
    removes noise. Null leaves the outputs as they are, as in the official program."""
    probe_lengths: Annotated[
        tuple[Positive, ...], Field(validation_alias=AliasChoices("probe_lengths", "anchors"))
    ] = ()
    """Candidate lengths at which the encoder decodes a block, measures its distortion and calibrates the scores to it.
    Rising multiples of length_step; empty disables calibration."""
    lambdas: Annotated[tuple[tuple[float, float], ...], Field(validation_alias=AliasChoices("lambdas", "prices"))] = ()
    """Pairs (tokens, lambda): the average length of a block at that lambda, measured on training clips, in order of
    rising tokens. A stream with a budget starts at the lambda that the pairs give for it."""

    @model_validator(mode="after")
    def _check_probe_lengths(self) -> ScorerConfig:
        probes, step = list(self.probe_lengths), self.length_step
        if probes != sorted(set(probes)) or any(length % step for length in probes):
            raise ValueError(f"probe_lengths {probes}, expected rising multiples of length_step {step}")
        if probes and self.target == "cumulative":
            raise ValueError(
                f"probe_lengths {probes} with the target cumulative, expected none; the effort of encoding says how"
                " much is measured"
            )
        if probes and self.distortion == "lpips":
            raise ValueError(
                "probe_lengths need a distortion that the encoder can measure, but lpips needs weights of its own;"
                " change distortion, or leave probe_lengths empty"
            )
        return self

    @model_validator(mode="after")
    def _check_lambdas(self) -> ScorerConfig:
        rising = all(a[0] < b[0] and a[1] > b[1] for a, b in pairwise(self.lambdas))
        if not rising or any(lmbda <= 0 for _, lmbda in self.lambdas):
            raise ValueError(
                f"lambdas {list(self.lambdas)}, expected positive lambdas that fall as tokens rise; measure them again"
            )
        return self


class PriorConfig(TransformerConfig):
    """Small causal transformer that predicts each kept code from those before it (the prior of LARP)."""

    width: Count = 512
    """Number of dimensions of the rows between blocks."""
    depth: Depth = 12
    """Number of blocks of the stack."""
    heads: Count = 8
    """Number of attention heads. It divides the width."""
    dropout: Fraction01 = 0.1
    """Dropout probability of inputs, attention weights and layer outputs during training."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """Temperature of the logits, which are cosine similarities with the codebook entries."""
    sampling_peak: Fraction01 = 0.5
    """Maximum fraction of inputs that scheduled sampling replaces by ids drawn from the prior's own predictions."""
    sampling_ramp: Annotated[float, Field(gt=0.0, le=1.0)] = 0.3
    """Fraction of the training over which the fraction of replaced inputs rises linearly from 0 to its maximum."""


class ModelConfig(Config):
    """Configuration of a whole model, stored in the config.json of a model folder."""

    name: str = "adaptok"
    """Name of the model."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Format of clips, and architecture of the encoder, quantizer and decoder."""
    scorer: ScorerConfig | None = ScorerConfig()
    """Scorer of candidate lengths. Without one (null), blocks have uniform lengths."""
    prior: PriorConfig | None = None
    """Prior that makes ids easier to predict during training. Null trains without one."""

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        scorer, latents = self.scorer, self.tokenizer.latents
        if scorer is not None and latents % scorer.length_step:
            raise ValueError(f"latents {latents} is not a multiple of the scorer's length_step {scorer.length_step}")
        if scorer is not None and scorer.degree is not None and scorer.degree >= latents // scorer.length_step:
            raise ValueError(
                f"degree {scorer.degree} of a scorer with {latents // scorer.length_step} candidate lengths,"
                " expected less"
            )
        if scorer is not None and scorer.curve:
            shape = self.tokenizer.blocks, latents // scorer.length_step
            if len(scorer.curve) != shape[0] or any(len(row) != shape[1] for row in scorer.curve):
                raise ValueError(
                    f"curve of {len(scorer.curve)} rows, expected {shape[0]}, one for each block, of {shape[1]} values"
                    " for the candidate lengths"
                )
        if scorer is not None and scorer.probe_lengths and scorer.probe_lengths[-1] > latents:
            raise ValueError(f"probe length {scorer.probe_lengths[-1]} is above the {latents} latents of a block")
        if self.prior is not None and self.tokenizer.quantizer.kind != "vector":
            raise ValueError(
                "a prior needs the vector quantizer, because it predicts codebook entries; set prior to null"
            )
        return self


def base() -> ModelConfig:
    """Return the official configuration: a tokenizer of 173 M and a scorer of 89 M parameters."""
    return ModelConfig(name="adaptok-base")
