"""Speed of the full-size model on this machine, as a share of its matrix-product peak, and peak memory.

python benchmarks/codec.py [--clips 4] [--dtype float32 bfloat16] [--repeats 3]

Random weights of the preset `base`. Work is the least that block-causal attention needs: rows that nobody reads
leave the last layer out, dropped latents cost nothing, and no query meets a key that it may not see. It counts matrix
products only, two operations for a multiplication and addition.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from adaptok import AdapTok, Spending
from adaptok.configuration import base
from adaptok.models.model import Model
from adaptok.models.work import decoder_work, encoder_work, scorer_work

DECODED_LENGTHS = ([448, 256, 192, 128], [128, 256, 256, 384], [512, 192, 192, 128], [256, 256, 256, 256])
"""1024 tokens a clip, as an allocation may spread them."""


def peak(dtype: torch.dtype) -> float:
    """Operations per second of the best large matrix product."""
    best = 0.0
    for rows, inner, columns in ((3072, 3072, 3072), (4096, 768, 3072), (8192, 768, 2304), (2048, 3072, 768)):
        a, b = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
        for _ in range(6):
            started = time.perf_counter()
            torch.mm(a, b.T)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - started))
    return best


def timed(run: Callable[[], object], repeats: int, dtype: torch.dtype) -> tuple[float, float, float]:
    """Median and least seconds, and the peak of the machine, measured before, between and after."""
    run()
    times, peaks = [], [peak(dtype)]
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
        peaks.append(peak(dtype))
    return sorted(times)[len(times) // 2], min(times), max(peaks)


@torch.no_grad()
def measure(dtype_name: str, clips: int, repeats: int) -> list[dict[str, object]]:
    """All measurements at one precision, in this process."""
    dtype = getattr(torch, dtype_name)
    torch.manual_seed(0)
    codec = AdapTok(Model(base()).to(dtype), "0" * 64)
    config = codec.config
    video = torch.rand(clips, 3, config.tokenizer.frames, config.tokenizer.size, config.tokenizer.size)
    choose = partial(Spending(1024, "batch").batch_lengths, shape=codec.shape)
    latents = codec.encode_clips(video)
    lengths, _ = codec.choose_lengths(latents, choose)
    spread = [DECODED_LENGTHS[n % len(DECODED_LENGTHS)] for n in range(clips)]
    even = [[256] * config.tokenizer.blocks] * clips

    def score_all() -> None:
        scores = codec.score_clips(codec.encode_clips(video), normalized=False).flatten(0, 1).cpu().numpy()
        Spending(1024).lengths(scores, len(scores), codec.shape)

    encode = clips * encoder_work(config)
    full = clips * scorer_work(config, None)
    causal = sum(scorer_work(config, clip) for clip in lengths.tolist())
    cases: list[tuple[str, float, Callable[[], object]]] = [
        ("encode", encode, lambda: codec.encode_clips(video)),
        ("encode + scorer + allocation, scope video", encode + full, score_all),
        (
            "encode + scorer + allocation, scope batch",
            encode + causal,
            lambda: codec.choose_lengths(codec.encode_clips(video), choose),
        ),
        (
            "decode, 1024 tokens a clip, lengths differ",
            sum(decoder_work(config, clip) for clip in spread),
            lambda: codec.decode_clips(latents.ids, spread),
        ),
        (
            "decode, 1024 tokens a clip, even lengths",
            clips * decoder_work(config, even[0]),
            lambda: codec.decode_clips(latents.ids, even),
        ),
    ]
    results: list[dict[str, object]] = []
    for name, work, run in cases:
        median, least, top = timed(run, repeats, dtype)
        results.append(
            {
                "case": name,
                "dtype": dtype_name,
                "clips": clips,
                "work_gflop": work / 1e9,
                "median_s": median,
                "least_s": least,
                "peak_gflops": top / 1e9,
                "share": work / median / top,
                "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
            }
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object per line instead of a table")
    options = parser.parse_args()
    if len(options.dtype) > 1:  # each in its own process, so that peak memory is its own
        for dtype in options.dtype:
            flags = ["--clips", str(options.clips), "--repeats", str(options.repeats), "--dtype", dtype]
            subprocess.run([sys.executable, __file__, *flags, *(["--json"] if options.json else [])], check=True)
        return
    results = measure(options.dtype[0], options.clips, options.repeats)
    if options.json:
        for result in results:
            print(json.dumps(result))
        return
    print(f"{options.dtype[0]}, {options.clips} clips, {torch.get_num_threads()} threads, preset base, random weights")
    for r in results:
        print(
            f"  {r['case']:<44} {r['work_gflop']:7.0f} GFLOP  {r['median_s']:6.2f} s (least {r['least_s']:.2f})"
            f"  peak {r['peak_gflops']:4.0f} GFLOP/s  share {r['share']:6.1%}  memory {r['memory_gb']:.2f} GB",
            flush=True,
        )


if __name__ == "__main__":
    main()
