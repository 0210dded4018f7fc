"""What adaptive lengths are worth: a folder of videos at a budget, spent by the scores and evenly.

python benchmarks/adaptive.py FOLDER [--budget 384] [--model MODEL]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from adaptok import AdapTok, Spending
from adaptok.data import VIDEO_SUFFIXES, find_entries
from adaptok.evaluation.reconstruction import compare, rank_correlation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budget", type=float, help="tokens per clip; half of the most if not given")
    parser.add_argument("--model", help="model folder or hub id; the model in the box if not given")
    options = parser.parse_args()
    codec = AdapTok.from_pretrained(options.model)
    budget = codec.max_budget / 2 if options.budget is None else options.budget
    quality: list[tuple[float, float]] = []
    predicted: list[float] = []
    actual: list[float] = []
    for video in (entry.path for entry in find_entries(options.folder, VIDEO_SUFFIXES)):
        full = codec.encode(video)
        even = full.shorten(Spending(budget, uniform=True).lengths(None, len(full.lengths), codec.shape))
        adaptive, uniform = compare(codec, video, [full.truncate(budget), even])
        quality.append((adaptive.psnr, uniform.psnr))
        predicted += adaptive.predicted.tolist()
        actual += adaptive.actual
        print(f"{video.name}: adaptive {adaptive.psnr:.2f} dB, uniform {uniform.psnr:.2f} dB", flush=True)
    mean = np.mean(quality, axis=0)
    above = sum(a > u for a, u in quality)
    print(f"mean of {len(quality)}: adaptive {mean[0]:.2f} dB, uniform {mean[1]:.2f} dB; {above} videos above uniform")
    correlation = rank_correlation(np.array(predicted), np.array(actual))
    print(f"rank correlation of predicted and actual distortion over {len(actual)} blocks: {correlation:.3f}")


if __name__ == "__main__":
    main()
