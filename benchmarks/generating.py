"""How fast a generator samples, beside what memory allows: tokens a second at batch 1 and 8, and the places in use.

python benchmarks/generating.py [--size LP] [--device cpu] [--dtype bfloat16] [--batches 1 8] [--tokens 256 1024]

Random weights, the official sizes, classes as the condition. A step of a batch reads every weight once, and the keys
and values of its rows so far; the share of the bandwidth is what that takes at the speed of reading the weights alone
(measured in the same run, the best of several) over what it took. `--tokens` are lengths of clips, spread evenly over
four blocks; a longer clip has more keys and values to read, and those of a batch are as many times more.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from adaptok.configuration import GeneratorConfig
from adaptok.generation.sampling import Sampler, Sampling
from adaptok.models.generator import GeneratorModel
from adaptok.models.reordered import reorder_linears

SIZES = {"S": (12, 6, 384), "B": (12, 12, 768), "L": (24, 16, 1024), "LP": (30, 20, 1280), "XL": (36, 20, 1280)}
"""Layers, heads and width."""
BLOCKS, UNEVEN_CLIPS, UNEVEN_BATCH = 4, 64, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="LP")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    model = build(SIZES[options.size], torch.device(options.device), getattr(torch, options.dtype))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    report: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "reading_gb_per_second": reading_speed(model) / 1e9,
    }
    reorder_linears(model)
    report["sampling"] = [
        measure(model, batch, tokens, weights, report["reading_gb_per_second"] * 1e9, options.repeats)
        for tokens in options.tokens
        for batch in options.batches
    ]
    report["places_in_use"] = places_in_use(torch.device(options.device))
    if options.json:
        print(json.dumps(report))
        return
    print({name: value for name, value in report.items() if name != "sampling"})
    for row in report["sampling"]:
        print({name: round(value, 3) for name, value in row.items()})


def build(size: tuple[int, int, int], device: torch.device, dtype: torch.dtype, ids: int = 8192) -> GeneratorModel:
    depth, heads, width = size
    config = GeneratorConfig(width=width, depth=depth, heads=heads, codebook_size=ids, classes=101)
    with torch.device("meta"):
        model = GeneratorModel(config)
    model = model.to_empty(device=device).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else torch.nn.init.ones_(parameter)
    return model.eval()


@torch.inference_mode()
def reading_speed(model: GeneratorModel) -> float:
    """Bytes a second of reading all weights, the best of several times."""
    rows = torch.cat([p.detach().flatten().view(torch.uint8) for p in model.parameters()]).view(torch.int64)
    best = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        rows.max().item()
        best = min(best, time.perf_counter() - started)
    return rows.numel() * rows.element_size() / best


def measure(
    model: GeneratorModel, batch: int, tokens: int, weights: float, speed: float, repeats: int
) -> dict[str, float]:
    """The median of some runs of `batch` clips of `tokens` tokens."""
    config = model.config
    rules = Sampling(least=tokens // BLOCKS, most=tokens // BLOCKS)
    times = []
    for repeat in range(repeats):
        sampler = Sampler(model, rules, batch)
        started = time.perf_counter()
        written = sum(len(row) for _, row in sampler.rows(torch.arange(batch) % 101, range(repeat, repeat + batch)))
        times.append(time.perf_counter() - started)
    elapsed, steps = sorted(times)[len(times) // 2], written // batch
    size = model.dtype.itemsize
    known = 2 * config.depth * config.width * size * steps * (steps + 1) / 2 * batch  # keys and values, over all steps
    return {
        "batch": batch,
        "tokens": tokens,
        "tokens_per_second": written / elapsed,
        "milliseconds_of_a_step": elapsed / steps * 1e3,
        "share_of_bandwidth": (weights * steps + known) / speed / elapsed,
    }


def places_in_use(device: torch.device) -> float:
    """Share of a batch's places that hold a clip, over the steps of many clips of uneven length: of 4 to 240 tokens,
    since every 30th entry or so ends a block."""
    sampler = Sampler(build((2, 2, 64), device, torch.float32, ids=30), Sampling(most=60), UNEVEN_BATCH)
    for _ in sampler.rows(torch.arange(UNEVEN_CLIPS), range(UNEVEN_CLIPS)):
        pass
    return sampler.work.entries / sampler.work.places


if __name__ == "__main__":
    main()
