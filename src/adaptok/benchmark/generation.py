"""Sampling a generator, beside what memory allows.

A step of a batch reads every weight once, and the keys and values of its rows so far. The share of the bandwidth is
what that takes at the speed of reading the weights alone, the best of several times in the same run, over what it took.
"""

from __future__ import annotations

import time

import torch

from adaptok.benchmark.timing import Measurement, memory, summary, timed
from adaptok.config.generator import GeneratorConfig, generator_size
from adaptok.generation.sampling import Sampler, Sampling
from adaptok.models.generator import GeneratorModel
from adaptok.ops.prepacked_linear import prepack_linears

CLASSES = 101
UNEVEN_CLIPS, UNEVEN_BATCH = 64, 8
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
    """Clips of an official size with random weights, all of the same length; and how many places of a batch are in use
    where lengths differ.

    Args:
        batches: clips at a time.
        tokens: of a clip, spread evenly over its blocks: a longer one has more keys and values to read.
        compile: see `Sampler`; compiling is not timed.
    """
    model = random_generator(size, dtype, device)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    speed = reading_speed(model)
    if not compile:
        prepack_linears(model)
    found = [
        _measure(model, size, batch, count, weights, speed, repeats, compile) for count in tokens for batch in batches
    ]
    return [*found, _measure_places(device)]


def random_generator(size: str, dtype: torch.dtype, device: torch.device, ids: int = 8192) -> GeneratorModel:
    """Of an official size, for classes."""
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
    """Bytes a second of reading all weights, the best of several times."""
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
    rules = Sampling(least=each, most=each)
    entries = config.blocks * (each + 1)

    def run() -> None:
        for _ in Sampler(model, rules, batch, compile=compile).rows(torch.arange(batch) % CLASSES, range(batch)):
            pass

    if compile:
        run()
    spent = timed(run, repeats, model.device)
    told = summary(spent)
    known = 2 * config.depth * config.width * model.dtype.itemsize * entries * (entries + 1) / 2 * batch
    return Measurement(
        case=f"sample clips of {config.blocks * each} tokens, {batch} at a time",
        settings={"generator": size, "dtype": str(model.dtype).removeprefix("torch."), "clips": batch}
        | ({"compiled": True} if compile else {}),
        **told,
        memory_gb=memory(model.device) / 1e9,
        more={
            "tokens_per_second": entries * batch / told["median_s"],
            "reading_gb_per_second": speed / 1e9,
            "share_of_bandwidth": (weights * entries + known) / speed / told["median_s"],
        },
    )


def _measure_places(device: torch.device) -> Measurement:
    """Clips of 4 to 240 tokens: every 30th entry or so ends a block."""
    model = random_generator("S", torch.float32, device, ids=30)
    sampler = Sampler(model, Sampling(most=60), UNEVEN_BATCH)

    def run() -> None:
        for _ in sampler.rows(torch.arange(UNEVEN_CLIPS), range(UNEVEN_CLIPS)):
            pass

    spent = timed(run, 1, device)
    return Measurement(
        case=f"{UNEVEN_CLIPS} clips of uneven length, {UNEVEN_BATCH} at a time",
        settings={"generator": "S", "dtype": "float32", "clips": UNEVEN_BATCH},
        **summary(spent),
        memory_gb=memory(device) / 1e9,
        more={"places_in_use": sampler.work.entries / sampler.work.places},
    )
