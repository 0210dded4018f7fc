"""Measure the speed of tokenizing with one worker and with two where decoding, not the model, is the bottleneck.

python benchmarks/tokenizing.py [--videos 16] [--frames 96] [--height 1080] [--rounds 3]

The model is tiny, and the videos are large and noisy. One and two workers are measured alternately, so that both see
the same machine load, from the first clip to the last; the rate including process start and model loading is printed
too. A worker decodes with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from adaptok import AdapTok
from adaptok.config.model import ModelConfig
from adaptok.config.tokenizer import ScalarQuantizerConfig, TokenizerConfig
from adaptok.config.transformer import StackConfig
from adaptok.models.model import Model, weights_hash
from adaptok.tokenization import TokenOptions, TokenPlan, tokenize
from adaptok.video.reading import VideoReader
from adaptok.video.writing import VideoWriter


def write_videos(folder: Path, count: int, frames: int, height: int) -> None:
    """Write one video and copies of it."""
    width = height * 16 // 9 // 2 * 2
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (height + 64, width + 64, 3), dtype=np.uint8)
    noise = (noise // 4 + 128 * (np.indices(noise.shape).sum(0) // 64 % 2)).astype(np.uint8)
    first = folder / "000.mp4"
    with VideoWriter(first, 30) as writer:
        for index in range(frames):
            top, left = index * 3 % 64, index * 5 % 64
            writer.write(np.ascontiguousarray(noise[top : top + height, left : left + width]))
    for index in range(1, count):
        shutil.copy(first, folder / f"{index:03d}.mp4")


def write_model(folder: Path) -> None:
    """Write a model with one thin layer in the encoder and in the decoder."""
    torch.manual_seed(0)
    stack = StackConfig(width=16, depth=1, heads=1)
    tokenizer = TokenizerConfig(
        size=64, patch_size=32, latents=8, encoder=stack, decoder=stack, quantizer=ScalarQuantizerConfig(levels=(8, 8))
    )
    model = Model(ModelConfig(name="thin", tokenizer=tokenizer, scorer=None))
    AdapTok(model, weights_hash(model.state_dict())).save_pretrained(folder)


class Clock:
    """Record when clips are finished."""

    def __init__(self) -> None:
        self.times: list[tuple[float, int]] = []

    def begun(self, plan: TokenPlan, clips: int) -> Callable[[int], None]:
        return lambda count: self.times.append((time.perf_counter(), count))

    @property
    def rate(self) -> float:
        """Clips per second, counted from the first clips."""
        (start, first), (stop, _) = self.times[0], self.times[-1]
        return (sum(count for _, count in self.times) - first) / (stop - start)


def measure(folder: Path, workers: int) -> tuple[float, float]:
    """Clips per second, without and with the start-up."""
    clock, started = Clock(), time.perf_counter()
    out = folder / "out"
    options = TokenOptions(shard_clips=1)
    model = folder / "model"
    done = tokenize(folder / "videos", out, model, options, device="cpu", workers=workers, on_start=clock.begun)
    whole = done.clips / (time.perf_counter() - started)
    shutil.rmtree(out)
    return clock.rate, whole


def seconds_per_clip(folder: Path) -> tuple[float, float]:
    """Seconds per clip of the video decoder (including conversion to RGB) and of the model."""
    started = time.perf_counter()
    with VideoReader(folder / "videos" / "000.mp4", threads=1) as reader:
        frames = sum(1 for _ in reader)
    decoding = (time.perf_counter() - started) / frames * 16
    codec, clips = AdapTok.from_pretrained(folder / "model", device="cpu"), torch.rand(4, 3, 16, 64, 64)
    codec.encode_clips(clips)
    started = time.perf_counter()
    for _ in range(10):
        codec.encode_clips(clips)
    return decoding, (time.perf_counter() - started) / 40


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--height", type=int, default=1080)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        write_model(folder / "model")
        write_videos(folder / "videos", arguments.videos, arguments.frames, arguments.height)
        rates: dict[int, list[float]] = {1: [], 2: []}
        whole: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(arguments.rounds):
            for workers in (1, 2):
                rate, with_start = measure(folder, workers)
                rates[workers].append(rate)
                whole[workers].append(with_start)
        decoding, computing = seconds_per_clip(folder)
    one, two = statistics.median(rates[1]), statistics.median(rates[2])
    print(
        json.dumps(
            {
                "clips_per_second": {"1": one, "2": two},
                "ratio": two / one,
                "ratios": [b / a for a, b in zip(rates[1], rates[2], strict=True)],
                "clips_per_second_with_start": {str(n): statistics.median(values) for n, values in whole.items()},
                "seconds_per_clip": {"one worker": 1 / one, "decoder": decoding, "model": computing},
                "load": os.getloadavg()[0],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
