"""Estimates of what a run costs, before it starts."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from adaptok.checkpoints.hub import resolve as resolve_folder
from adaptok.config.discriminator import PatchDiscriminatorConfig
from adaptok.config.generator import GeneratorConfig
from adaptok.config.tokenizer import TokenizerConfig
from adaptok.config.training import AnyConfig, GeneratorTrainingConfig, TrainingConfig
from adaptok.config.transformer import StackConfig, TransformerConfig
from adaptok.data.token_datasets import TokenDatasetInfo
from adaptok.metrics.lpips import Lpips, Network
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
from adaptok.training.clip_data import open_clip_data
from adaptok.training.fvd import find_detector
from adaptok.training.initialization.initial_model import load_initial
from adaptok.training.losses import NETWORKS, LpipsNetworks, missing_weights
from adaptok.training.objectives import draw_lengths
from adaptok.training.optim import RunLength, run_length
from adaptok.training.processes import check_processes
from adaptok.training.stages import check_generator
from adaptok.training.token_data import open_token_data, resolve

NUM_SAMPLES = 256
"""Clips over which the distribution of lengths is averaged."""
LAYER_ACTIVATIONS = 17
"""Values that a transformer layer keeps per position for the backward pass, as a multiple of its width: norms, qkv,
attention, and both sides of the MLP."""
CONVOLUTION_ACTIVATIONS = 2
"""Values that a layer of the patch discriminator keeps, as a multiple of its output: the input of GroupNorm and the
output of LeakyReLU."""
LOGIT_ACTIVATIONS = 4
"""Half-precision values that take as much memory as one logit of the prior and its log-probability in float32."""
ASSUMED_LEVELS = (16, 8, 8, 8, 4)
"""Levels of the bundled tokenizer, assumed for generators that predict digits when there is no token dataset."""


def parameter_counts(config: TrainingConfig) -> dict[str, int]:
    """Count the parameters of each component. Components that the model lacks have 0."""
    with torch.device("meta"):
        counts = {"tokenizer": 0, "prior": 0, "scorer": 0, "discriminator": 0} | Model(config.model).parameter_counts()
        if config.stage == "tokenizer" and config.losses.adversarial:
            discriminator = build_discriminator(config.discriminator, config.model.tokenizer)
            counts["discriminator"] = sum(p.numel() for p in discriminator.parameters())
    return counts


def step_flops(config: TrainingConfig) -> float:
    """Estimate the mean FLOPs of a step on a single process, forward and backward. Of the losses, only LPIPS counts."""
    tokenizer, clips = config.model.tokenizer, config.batch_plan(1).batch_size
    lengths = draw_lengths(config.lengths, NUM_SAMPLES, tokenizer.blocks, torch.Generator().manual_seed(0))
    if config.stage == "scorer":
        assert config.model.scorer is not None
        candidates = range(config.model.scorer.length_step, tokenizer.latents + 1, config.model.scorer.length_step)
        decoded = sum(decoder_flops(config.model, [n] * tokenizer.blocks) / tokenizer.blocks for n in candidates)
        flops = encoder_flops(config.model) + decoded + 3 * scorer_flops(config.model, None)
        if config.model.scorer.distortion == "lpips":  # of each candidate, and once of the original
            frames = (len(candidates) + 1) * tokenizer.temporal_patch_size
            flops += frames * lpips_cost("vgg", tokenizer.size).forward
        return clips * flops
    decode = sum(decoder_flops(config.model, clip) for clip in lengths) / len(lengths)
    flops = 3 * (encoder_flops(config.model) + decode)
    if config.model.prior is not None:
        rounds = 2 if config.model.prior.sampling_peak else 1
        flops += 3 * rounds * sum(prior_flops(config.model, sum(clip)) for clip in lengths) / len(lengths)
    if config.losses.adversarial:
        once = discriminator_flops(config.discriminator, tokenizer)
        # reconstructions at each step; reconstructions and originals where the discriminator is updated
        flops += 2 * once + 6 * once / config.discriminator.update_interval
    flops += sum(frames * cost.training for frames, cost in _lpips_losses(config))
    return clips * flops


class LpipsCost(NamedTuple):
    """Cost of LPIPS on one frame."""

    forward: float
    """FLOPs of the network."""
    training: float
    """FLOPs of a training step: the network on both frames, and the gradient of one of them."""
    kept: float
    """Values that are kept for the backward pass."""


@cache
def lpips_cost(network: Network, side: int) -> LpipsCost:
    """Count the cost of LPIPS on a frame of `side` x `side` pixels, by tracing the network without data."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.device("meta"):
        model = Lpips(network)
        first, second = torch.rand(1, 3, side, side, requires_grad=True), torch.rand(1, 3, side, side)
    with FlopCounterMode(display=False) as once, torch.no_grad():
        model(first, second)
    with FlopCounterMode(display=False) as step, saved_tensors_hooks(keep, lambda tensor: tensor):
        model(first, second).sum().backward()
    weights = sum(parameter.numel() for parameter in model.parameters())  # saved too, but not anew for each frame
    return LpipsCost(once.get_total_flops() / 2, step.get_total_flops(), sum(kept.values()) - weights)


def _lpips_losses(config: TrainingConfig) -> list[tuple[int, LpipsCost]]:
    """Return the number of frames per clip, and the cost of each, of every LPIPS loss of a tokenizer run."""
    tokenizer, networks = (
        config.model.tokenizer,
        zip(NETWORKS, (config.losses.lpips, config.losses.lpips_alex), strict=True),
    )
    return [
        (
            min(loss.frames or tokenizer.frames, tokenizer.frames),
            lpips_cost(network, min(loss.crop or tokenizer.size, tokenizer.size)),
        )
        for network, loss in networks
        if loss.weight
    ]


def step_memory(config: TrainingConfig, processes: int = 1) -> float:
    """Estimate the memory of one of several processes, in bytes: weights, gradients, optimizer state, moving average,
    and activations of a micro-batch."""
    counts = parameter_counts(config)
    trained = counts["scorer"] if config.stage == "scorer" else counts["tokenizer"] + counts["prior"]
    trained += counts["discriminator"]
    fixed = 4 * sum(counts.values()) + (12 + 4 * bool(config.ema_decay)) * trained
    tokenizer = config.model.tokenizer
    size = 4 if config.precision == "float32" else 2
    positions = tokenizer.blocks * (tokenizer.patches + tokenizer.latents)
    if config.stage == "scorer":
        assert config.model.scorer is not None
        stacks: list[TransformerConfig] = [config.model.scorer]
        positions = tokenizer.blocks * tokenizer.latents
    else:
        stacks = [tokenizer.encoder, tokenizer.decoder]
    checkpointing = config.activation_checkpointing
    kept: float = sum(s.depth * positions * s.width * (1 if checkpointing else layer_activations(s)) for s in stacks)
    if config.stage == "tokenizer" and config.losses.adversarial:
        kept += _discriminator_activations(config)
    if config.stage == "tokenizer":
        kept += sum(frames * cost.kept for frames, cost in _lpips_losses(config)) + _prior_activations(config)
    return fixed / _shards(config, processes) + config.batch_plan(processes).micro_batch_size * size * kept


def _shards(config: AnyConfig, processes: int) -> int:
    """Return over how many processes weights, gradients and optimizer state are split."""
    return processes if config.sharding else 1


def layer_activations(stack: TransformerConfig) -> int:
    """Return how many values a layer keeps per position for the backward pass, as a multiple of its width."""
    return LAYER_ACTIVATIONS + 2 * (isinstance(stack, StackConfig) and stack.qk_norm)  # q and k before normalization


def _prior_activations(config: TrainingConfig) -> float:
    """Count the values that the prior keeps per clip for the backward pass, at the mean length."""
    prior, tokenizer = config.model.prior, config.model.tokenizer
    if prior is None:
        return 0.0
    lengths = draw_lengths(config.lengths, NUM_SAMPLES, tokenizer.blocks, torch.Generator().manual_seed(0))
    positions = sum(map(sum, lengths)) / len(lengths)
    rounds = 2 if prior.sampling_peak else 1
    logits = LOGIT_ACTIVATIONS * tokenizer.quantizer.codebook_size
    return rounds * positions * (prior.depth * LAYER_ACTIVATIONS * prior.width + logits)


def _discriminator_activations(config: TrainingConfig) -> float:
    """Count the values that the discriminator keeps per clip for the backward pass."""
    discriminator, clips = config.discriminator, config.model.tokenizer
    if isinstance(discriminator, PatchDiscriminatorConfig):
        layers = zip(discriminator.widths, patch_shapes(discriminator, clips), strict=True)
        return CONVOLUTION_ACTIVATIONS * sum(width * positions for width, positions in layers)
    return discriminator.depth * LAYER_ACTIVATIONS * transformer_rows(discriminator, clips) * discriminator.width


def describe(config: AnyConfig, processes: int = 1) -> dict[str, Any]:
    """Describe a run before it starts, as a JSON object: sizes, FLOPs, memory, data, and what it still lacks.

    Everything that is given is checked as at the start of a run. Data is opened only if the configuration names any.
    Without, values that depend on it are None, and a generator is assumed to be trained on tokens of half the maximum
    length.

    Args:
        config: configuration of the run.
        processes: number of training processes.

    Raises:
        FileNotFoundError: a folder, list, dataset or file of weights does not exist.
        ValueError: the data, the initial model or the processes do not fit the configuration, or too much data is
            broken.
    """
    check_processes(config, processes)
    find_detector(config, torch.device("cpu"))
    plan, missing = config.batch_plan(processes), missing_inputs(config)
    common = {
        "processes": processes,
        "clips_per_step": plan.batch_size,
        "micro_batch_size": plan.micro_batch_size,
        "gradient_accumulation_steps": plan.gradient_accumulation_steps,
        "missing": missing,
        "configuration": config.model_dump(mode="json"),
    }
    if isinstance(config, GeneratorTrainingConfig):
        return {**_describe_generator(config, processes), **common}
    check_inputs(config)
    data = open_clip_data(config) if config.data.train or config.data.drawn_fraction == 1 else None
    length = _known_length(config, None if data is None else data.epoch_size, processes)
    return {
        "parameters": parameter_counts(config),
        "steps": None if length is None else length.steps,
        "warmup_steps": None if length is None else length.warmup_steps,
        "gflop_per_step": step_flops(config) / 1e9,
        "memory_gb": step_memory(config, processes) / 1e9,
        "files": None if data is None else data.epoch_size,
        "broken": {} if data is None else dict(data.broken),
        "validation_clips": 0 if data is None or data.validation is None else len(data.validation),
        **common,
    }


def missing_inputs(config: AnyConfig) -> list[str]:
    """List what a run needs but the configuration does not name, or not yet: data, weights, and the initial model."""
    missing = []
    if not config.data.train and (isinstance(config, GeneratorTrainingConfig) or config.data.drawn_fraction < 1):
        kind = "token datasets" if isinstance(config, GeneratorTrainingConfig) else "folders or lists of files"
        missing.append(f"data.train is empty; give {kind} with --data.train")
    if not isinstance(config, GeneratorTrainingConfig) and (weights := missing_weights(config)) is not None:
        missing.append(weights)
    if config.initial is None and config.stage == "scorer":
        missing.append("a scorer run needs a tokenizer; give its model folder with --initial")
    if config.initial is not None:
        try:
            resolve_folder(config.initial)
        except FileNotFoundError as error:
            missing.append(f"initial {error}; train that model first, or give another with --initial")
    return missing


def check_inputs(config: TrainingConfig) -> None:
    """Check the LPIPS weights and the initial model, where they are given, by loading them.

    Raises:
        FileNotFoundError: a file of weights does not exist.
        ValueError: weights are not the published ones, or the model does not fit the configuration.
    """
    if missing_weights(config) is None:
        LpipsNetworks.load(config, torch.device("cpu"))
    if config.initial is not None and not any(text.startswith("initial ") for text in missing_inputs(config)):
        load_initial(config)


def _known_length(config: AnyConfig, epoch_size: int | None, processes: int) -> RunLength | None:
    return None if config.max_steps is None and epoch_size is None else run_length(config, epoch_size, processes)


def _describe_generator(config: GeneratorTrainingConfig, processes: int) -> dict[str, Any]:
    data = open_token_data(config) if config.data.train else None
    model = _assumed_generator(config) if data is None else data.config
    if data is not None:
        check_generator(config, data)
    length = _known_length(config, None if data is None else data.epoch_size, processes)
    with torch.device("meta"):
        parameters = GeneratorModel(model).parameter_counts()
    clips, entries = config.batch_plan(processes).batch_size, model.blocks * (model.latents / 2 + 1)
    if data is not None:
        entries = data.train.count_entries(0, len(data.train)) / len(data.train)
    return {
        "parameters": parameters,
        "steps": None if length is None else length.steps,
        "warmup_steps": None if length is None else length.warmup_steps,
        "entries_per_clip": entries,
        "gflop_per_step": 3 * clips * generator_flops(model, round(entries)) / 1e9,
        "memory_gb": _generator_memory(config, model, parameters["generator"], entries, processes) / 1e9,
        "clips": None if data is None else len(data.train.clips),
        "clips_per_epoch": None if data is None else len(data.train),
        "labels": list(model.labels),
        "validation_clips": 0 if data is None or data.validation is None else len(data.validation),
        "model": model.model_dump(mode="json"),
    }


def _assumed_generator(config: GeneratorTrainingConfig) -> GeneratorConfig:
    """Complete the configuration of a generator as for tokens of a tokenizer of the default size."""
    partial, tokenizer = config.model, TokenizerConfig()
    levels = partial.levels or (ASSUMED_LEVELS if partial.mixture > 1 else ())
    codebook_size = int(torch.tensor(levels).prod()) if levels else tokenizer.quantizer.codebook_size
    info = TokenDatasetInfo(
        model=partial.model or "unknown",
        model_hash=partial.model_hash or "",
        codebook_size=partial.codebook_size or codebook_size,
        levels=levels,
        latents=partial.latents or tokenizer.latents,
        blocks=partial.blocks or tokenizer.blocks,
        block_frames=tokenizer.temporal_patch_size,
        size=tokenizer.size,
        length_step=1,
        condition_frames=tokenizer.temporal_patch_size + 1 if partial.condition == "frames" else 0,
    )
    return resolve(partial, info, config.data.labels or ("unknown",))


def _generator_memory(
    config: GeneratorTrainingConfig, model: GeneratorConfig, parameters: int, entries: float, processes: int
) -> float:
    """Estimate the memory of a process as `step_memory` does."""
    size = 4 if config.precision == "float32" else 2
    clips = config.batch_plan(processes).micro_batch_size
    positions = clips * (model.prefix + entries)
    # norms, qkv, attention and its projection; gate, up and their product
    values = 1.0 if config.activation_checkpointing else 9 + 4 * model.hidden / model.width
    kept = positions * model.depth * values * model.width * size
    logits = 0 if model.levels else 2 * 4 * clips * entries * model.vocabulary
    fixed = (16 + 4 * bool(config.ema_decay)) * parameters
    return fixed / _shards(config, processes) + kept + logits
