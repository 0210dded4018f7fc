"""Benchmarks of sampling a generator, against the bandwidth of memory.

A decode step of a batch reads every weight once, and the keys and values of its sequences so far. The fraction of the
bandwidth is the time that this takes at the speed of reading the weights alone, divided by the measured time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptok.benchmark.timing import Measurement, timed
from adaptok.config.choices import WeightFormat
from adaptok.config.generator import GeneratorConfig, generator_size
from adaptok.generation.sampling import Sampler, Sampling
from adaptok.generation.weights import check_weights
from adaptok.models.generator import GeneratorModel
from adaptok.ops.int8_linear import quantize_linears
from adaptok.ops.prepacked_linear import plain_linears, prepack_linears, unpack_linears

CLASSES = 101
VARYING_CLIPS, VARYING_BATCH = 64, 8
_READS = 7
LOSS_CLIPS, LOSS_TOKENS = 4, 64
"""Number of sampled clips, and maximum number of tokens of each, on which the cross-entropy is compared."""


@dataclass(frozen=True)
class _Subject:
    """A generator that is measured.

    model, name: the generator and its name.
    settings: further settings of its measurements.
    weight_bytes: size of all weights.
    reading_speed: bytes per second.
    """

    model: GeneratorModel
    name: str
    settings: dict[str, Any]
    weight_bytes: int
    reading_speed: float


def measure_generation(
    model: GeneratorModel,
    name: str,
    batches: tuple[int, ...],
    tokens: tuple[int, ...],
    repeats: int,
    *,
    weights: WeightFormat = "float",
    compile: bool = False,
) -> list[Measurement]:
    """Measure sampling: clips of equal length, and with float weights the occupied slots when lengths differ.

    Args:
        model: generator in evaluation mode, whose linear layers are replaced by those that are measured.
        name: name of the generator.
        batches: numbers of clips that are sampled at once.
        tokens: tokens per clip, distributed uniformly over its blocks. Longer clips have more keys and values to read.
        repeats: number of repeats.
        weights: how linear layers store their weights, see `Generator.from_pretrained`. With "int8", the measurements
            hold the relative change of the cross-entropy of sequences that the generator sampled with float weights.
        compile: compile the decode step, see `Sampler`. Compilation is not timed.

    Raises:
        ValueError: int8 weights are combined with `compile` or a device other than a CPU.
    """
    check_weights(weights, model.device, compile)
    speed = reading_speed(model)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    settings: dict[str, Any] = {"compiled": True} if compile else {}
    more: dict[str, float] = {}
    if weights == "int8":
        size -= sum(w.numel() * (w.element_size() - 1) for _, _, w in plain_linears(model))
        settings["weights"] = weights
        more["cross_entropy_change"] = quantize(model, min(*tokens, LOSS_TOKENS))
    elif not compile:
        prepack_linears(model)
    subject = _Subject(model, name, settings, size, speed)
    measurements = [_measure(subject, batch, count, repeats, compile, more) for count in tokens for batch in batches]
    return measurements if weights == "int8" else [*measurements, _measure_slots(model.device)]


def quantize(model: GeneratorModel, tokens: int) -> float:
    """Round the weights of the linear layers to int8, and return the relative change of the cross-entropy of clips of
    `tokens` tokens that the model sampled before."""
    conditions = _conditions(model, LOSS_CLIPS)
    prepack_linears(model)
    sampled = dict(Sampler(model, _equal_lengths(model, tokens), LOSS_CLIPS).sequences(conditions, range(LOSS_CLIPS)))
    sequences = torch.tensor([sampled[index] for index in range(LOSS_CLIPS)])
    before = _cross_entropy(model, sequences, conditions)
    unpack_linears(model)
    quantize_linears(model)
    return _cross_entropy(model, sequences, conditions) / before - 1


@torch.inference_mode()
def _cross_entropy(model: GeneratorModel, sequences: Tensor, conditions: Tensor) -> float:
    """Compute the mean cross-entropy in nats of the ids of sequences `[B, n]`. End-of-block tokens do not count: their
    places were not sampled."""
    logits = model(sequences[:, :-1], conditions)  # [B, n, V]
    sampled = sequences != model.config.eob
    return float(F.cross_entropy(logits[sampled], sequences[sampled]))


def _conditions(model: GeneratorModel, count: int) -> Tensor:
    """Return conditions `[count, …]`: classes in turn, or random ids."""
    config = model.config
    if config.classes:
        return torch.arange(count, device=model.device) % config.classes
    random = torch.Generator().manual_seed(0)
    return torch.randint(config.codebook_size, (count, config.condition_ids), generator=random).to(model.device)


def _equal_lengths(model: GeneratorModel, tokens: int) -> Sampling:
    """Return settings for clips of about `tokens` tokens, the same number in every block."""
    each = max(1, tokens // model.config.blocks)
    return Sampling(min_length=each, max_length=each)


def random_generator(size: str, dtype: torch.dtype, device: torch.device, ids: int = 8192) -> GeneratorModel:
    """Build a class-conditional generator of an official size with random weights."""
    config = GeneratorConfig(**generator_size(size).model_dump(), codebook_size=ids, classes=CLASSES)
    with torch.device("meta"):
        model = GeneratorModel(config)
    model = model.to_empty(device=device).to(dtype)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else torch.nn.init.ones_(parameter)
    return model.eval()


@torch.inference_mode()
def reading_speed(model: GeneratorModel) -> float:
    """Bytes per second of reading all weights, the best of several runs."""
    rows = torch.cat([p.detach().flatten().view(torch.uint8) for p in model.parameters()])
    rows = rows[: len(rows) // 8 * 8].view(torch.int64)
    best = float("inf")
    for _ in range(_READS):
        started = time.perf_counter()
        rows.max().item()
        best = min(best, time.perf_counter() - started)
    return rows.numel() * rows.element_size() / best


def _measure(
    subject: _Subject, batch: int, tokens: int, repeats: int, compile: bool, more: dict[str, float]
) -> Measurement:
    model, config = subject.model, subject.model.config
    rules, conditions = _equal_lengths(model, tokens), _conditions(model, batch)
    each = rules.min_length
    entries = config.blocks * (each + 1)

    def run() -> None:
        for _ in Sampler(model, rules, batch, compile=compile).sequences(conditions, range(batch)):
            pass

    if compile:
        run()
    dtype = str(model.dtype).removeprefix("torch.")
    measurement = Measurement.of(
        f"sample clips of {config.blocks * each} tokens, {batch} at a time",
        {"generator": subject.name, "dtype": dtype, "clips": batch, **subject.settings},
        timed(run, repeats, model.device),
        model.device,
    )
    cache = 2 * config.depth * config.width * model.dtype.itemsize * entries * (entries + 1) / 2 * batch
    reading = (subject.weight_bytes * entries + cache) / subject.reading_speed
    figures = {
        "tokens_per_second": entries * batch / measurement.median_s,
        "weights_gb": subject.weight_bytes / 1e9,
        "reading_gb_per_second": subject.reading_speed / 1e9,
        "bandwidth_fraction": reading / measurement.median_s,
    }
    return replace(measurement, more=figures | more)


def _measure_slots(device: torch.device) -> Measurement:
    """Measure the occupied slots of a running batch with clips of 4 to 240 tokens."""
    model = random_generator("S", torch.float32, device, ids=30)
    sampler = Sampler(model, Sampling(max_length=60), VARYING_BATCH)

    def run() -> None:
        for _ in sampler.sequences(torch.arange(VARYING_CLIPS), range(VARYING_CLIPS)):
            pass

    times = timed(run, 1, device)
    return Measurement.of(
        f"{VARYING_CLIPS} clips of varying length, {VARYING_BATCH} at a time",
        {"generator": "S", "dtype": "float32", "clips": VARYING_BATCH},
        times,
        device,
        more={"occupied_slots": sampler.stats.entries / sampler.stats.slots},
    )
