"""Benchmarks of sampling a generator, against the bandwidth of memory.

A decode step of a batch reads every weight once, and the keys and values of its sequences so far. The fraction of the
bandwidth is the time that this takes at the speed of reading the weights alone, divided by the measured time.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from adaptok.benchmark.timing import Measurement, timed
from adaptok.config.generator import GeneratorConfig, generator_size
from adaptok.generation.sampling import Sampler, Sampling
from adaptok.models.generator import GeneratorModel
from adaptok.ops.prepacked_linear import prepack_linears

CLASSES = 101
VARYING_CLIPS, VARYING_BATCH = 64, 8
_READS = 7


def measure_generation(
    size: str,
    batches: tuple[int, ...],
    tokens: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    repeats: int,
    *,
    compile: bool = False,
) -> list[Measurement]:
    """Measure sampling with random weights: clips of equal length, and the occupied slots when lengths differ.

    Args:
        size: official size of the generator.
        batches: numbers of clips that are sampled at once.
        tokens: tokens per clip, distributed uniformly over its blocks. Longer clips have more keys and values to read.
        dtype, device: precision and device of the generator.
        repeats: number of repeats.
        compile: compile the decode step, see `Sampler`. Compilation is not timed.
    """
    model = random_generator(size, dtype, device)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    speed = reading_speed(model)
    if not compile:
        prepack_linears(model)
    measurements = [
        _measure(model, size, batch, count, weights, speed, repeats, compile) for count in tokens for batch in batches
    ]
    return [*measurements, _measure_slots(device)]


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
    model: GeneratorModel,
    size: str,
    batch: int,
    tokens: int,
    weights: float,
    speed: float,
    repeats: int,
    compile: bool,
) -> Measurement:
    config = model.config
    each = max(1, tokens // config.blocks)
    rules = Sampling(min_length=each, max_length=each)
    entries = config.blocks * (each + 1)

    def run() -> None:
        for _ in Sampler(model, rules, batch, compile=compile).sequences(torch.arange(batch) % CLASSES, range(batch)):
            pass

    if compile:
        run()
    settings: dict[str, Any] = {"generator": size, "dtype": str(model.dtype).removeprefix("torch."), "clips": batch}
    measurement = Measurement.of(
        f"sample clips of {config.blocks * each} tokens, {batch} at a time",
        settings | ({"compiled": True} if compile else {}),
        timed(run, repeats, model.device),
        model.device,
    )
    cache = 2 * config.depth * config.width * model.dtype.itemsize * entries * (entries + 1) / 2 * batch
    more = {
        "tokens_per_second": entries * batch / measurement.median_s,
        "reading_gb_per_second": speed / 1e9,
        "bandwidth_fraction": (weights * entries + cache) / speed / measurement.median_s,
    }
    return replace(measurement, more=more)


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
