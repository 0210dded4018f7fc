"""What a run will cost, before it runs."""

from __future__ import annotations

from typing import Any

import torch

from adaptok.config.discriminator import PatchDiscriminatorConfig
from adaptok.config.training import AnyConfig, GeneratorTrainingConfig, TrainingConfig
from adaptok.config.transformer import StackConfig, TransformerConfig
from adaptok.models.discriminator import build_discriminator
from adaptok.models.flops import (
    decoder_flops,
    discriminator_flops,
    encoder_flops,
    generator_flops,
    patch_shapes,
    prior_flops,
    scorer_flops,
    transformer_rows,
)
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.training.data import open_data
from adaptok.training.objectives import draw_lengths, missing_weights
from adaptok.training.schedule import run_length
from adaptok.training.token_data import TokenData, open_token_data

SAMPLE = 256
"""Clips over which the law of lengths is averaged."""
KEPT_VALUES = 17
"""Times the width, what a layer keeps of a row for its gradient: norms, qkv, attention, both sides of the MLP."""
KEPT_BY_CONVOLUTION = 2
"""Times its output, what a layer of the patch discriminator keeps for its gradient: the input of GroupNorm and the
output of LeakyReLU."""


def parameter_counts(config: TrainingConfig) -> dict[str, int]:
    """Trainable numbers by part; 0 for a part that is not there."""
    with torch.device("meta"):
        counts = {"tokenizer": 0, "prior": 0, "scorer": 0, "discriminator": 0} | Model(config.model).parameter_counts()
        if config.stage == "tokenizer" and config.losses.adversarial:
            critic = build_discriminator(config.discriminator, config.model.tokenizer)
            counts["discriminator"] = sum(p.numel() for p in critic.parameters())
    return counts


def step_work(config: TrainingConfig) -> float:
    """Operations of a step on one process, on average, forward and backward; the losses are left out."""
    tokenizer, clips = config.model.tokenizer, config.batch_plan(1).batch_size
    lengths = draw_lengths(config.lengths, SAMPLE, tokenizer.blocks, torch.Generator().manual_seed(0))
    if config.stage == "scorer":
        assert config.model.scorer is not None
        levels = range(config.model.scorer.length_step, tokenizer.latents + 1, config.model.scorer.length_step)
        decoded = sum(decoder_flops(config.model, [n] * tokenizer.blocks) / tokenizer.blocks for n in levels)
        return clips * (encoder_flops(config.model) + decoded + 3 * scorer_flops(config.model, None))
    decode = sum(decoder_flops(config.model, clip) for clip in lengths) / len(lengths)
    work = 3 * (encoder_flops(config.model) + decode)
    if config.model.prior is not None:
        rounds = 2 if config.model.prior.sampling_peak else 1
        work += 3 * rounds * sum(prior_flops(config.model, sum(clip)) for clip in lengths) / len(lengths)
    if config.losses.adversarial:
        once = discriminator_flops(config.discriminator, tokenizer)
        # of the reconstructions; and of these and the originals, at the steps where the discriminator is updated
        work += 2 * once + 6 * once / config.discriminator.update_interval
    return clips * work


def step_memory(config: TrainingConfig) -> float:
    """Bytes of weights, gradients, optimizer and average, and of what a batch keeps for its gradient: roughly."""
    counts = parameter_counts(config)
    learning = counts["scorer"] if config.stage == "scorer" else counts["tokenizer"] + counts["prior"]
    learning += counts["discriminator"]
    fixed = 4 * sum(counts.values()) + (12 + 4 * bool(config.ema_decay)) * learning
    tokenizer = config.model.tokenizer
    size = 2 if config.precision == "bfloat16" else 4
    rows = tokenizer.blocks * (tokenizer.patches + tokenizer.latents)
    if config.stage == "scorer":
        assert config.model.scorer is not None
        stacks: list[TransformerConfig] = [config.model.scorer]
        rows = tokenizer.blocks * tokenizer.latents
    else:
        stacks = [tokenizer.encoder, tokenizer.decoder]
    checkpointing = config.activation_checkpointing
    kept: float = sum(s.depth * rows * s.width * (1 if checkpointing else kept_values(s)) for s in stacks)
    if config.stage == "tokenizer" and config.losses.adversarial:
        kept += _discriminator_values(config)
    return fixed + config.pass_size * size * kept


def kept_values(stack: TransformerConfig) -> int:
    """Values that a layer keeps of a row for its gradient, as a multiple of the width."""
    return KEPT_VALUES + 2 * (isinstance(stack, StackConfig) and stack.qk_norm)  # q and k before normalization


def _discriminator_values(config: TrainingConfig) -> float:
    """Numbers that the discriminator keeps of a clip for the gradient."""
    critic, clips = config.discriminator, config.model.tokenizer
    if isinstance(critic, PatchDiscriminatorConfig):
        layers = zip(critic.widths, patch_shapes(critic, clips), strict=True)
        return KEPT_BY_CONVOLUTION * sum(width * places for width, places in layers)
    return critic.depth * KEPT_VALUES * transformer_rows(critic, clips) * critic.width


def describe(config: AnyConfig) -> dict[str, Any]:
    """Everything that is known before a run, as a JSON object. The data is opened.

    Raises:
        ValueError: there is no data, or too much of it is broken.
    """
    if isinstance(config, GeneratorTrainingConfig):
        return _describe_generator(config, open_token_data(config))
    data = open_data(config)
    steps, warmup = run_length(config, data.files)
    return {
        "parameters": parameter_counts(config),
        "steps": steps,
        "warmup_steps": warmup,
        "clips_per_step": config.batch_plan(1).batch_size,
        "gflop_per_step": step_work(config) / 1e9,
        "memory_gb": step_memory(config) / 1e9,
        "files": data.files,
        "broken": dict(data.broken),
        "missing": missing_weights(config),
        "validation_clips": 0 if data.validation is None else len(data.validation),
        "configuration": config.model_dump(mode="json"),
    }


def _describe_generator(config: GeneratorTrainingConfig, data: TokenData) -> dict[str, Any]:
    steps, warmup = run_length(config, data.files)
    with torch.device("meta"):
        parameters = GeneratorModel(data.config).parameter_counts()
    clips = config.batch_plan(1).batch_size
    entries = data.train.count(0, len(data.train)) / len(data.train)
    return {
        "parameters": parameters,
        "steps": steps,
        "warmup_steps": warmup,
        "clips_per_step": clips,
        "entries_per_clip": entries,
        "gflop_per_step": 3 * clips * generator_flops(data.config, round(entries)) / 1e9,
        "memory_gb": _generator_memory(config, data, parameters["generator"], entries) / 1e9,
        "clips": len(data.train),
        "labels": list(data.config.labels),
        "validation_clips": 0 if data.validation is None else len(data.validation),
        "model": data.config.model_dump(mode="json"),
        "configuration": config.model_dump(mode="json"),
    }


def _generator_memory(config: GeneratorTrainingConfig, data: TokenData, parameters: int, entries: float) -> float:
    """Bytes of weights, gradients, optimizer and average, and of what a batch keeps for its gradient: roughly."""
    model, size = data.config, 2 if config.precision == "bfloat16" else 4
    rows = config.pass_size * (model.prefix + entries)
    # norms, qkv, attention and its projection; gate, up and what they make
    values = 1.0 if config.activation_checkpointing else 9 + 4 * model.hidden / model.width
    kept = rows * model.depth * values * model.width * size
    logits = 0 if model.levels else 2 * 4 * config.pass_size * entries * model.vocabulary
    return (16 + 4 * bool(config.ema_decay)) * parameters + kept + logits
