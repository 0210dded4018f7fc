"""Measure the speed of tokenizing collections of videos.

python benchmarks/tokenizing.py pipeline [--collection FOLDER] [--clips 200] [--model FOLDER] [--threads N] [--rounds 2]

The clips per second of `adaptok tokenize` on the first clip of each video of a folder, and of the model alone on the
same clips in memory, measured alternately in one run. Both encode and score clips; the allocation and the Parquet files
belong to the first only. The share of waiting is the part of the time in which the model has no clip to encode. Without
a folder, copies of the bundled clip are read.

python benchmarks/tokenizing.py workers [--videos 16] [--frames 96] [--height 1080] [--rounds 3]

The speed of one worker and of two where decoding, not the model, is the bottleneck. The model is tiny, and the videos
are large and noisy. One and two workers are measured alternately, so that both see the same machine load, from the
first clip to the last; the rate including process start and model loading is printed too. A worker decodes with one
thread.
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

import adaptok
from adaptok import AdapTok
from adaptok.config.model import ModelConfig
from adaptok.config.tokenizer import ScalarQuantizerConfig, TokenizerConfig
from adaptok.config.transformer import StackConfig
from adaptok.data.manifests import VIDEO_SUFFIXES
from adaptok.models.model import Model, weights_hash
from adaptok.tokenization import TokenOptions, TokenPlan, tokenize
from adaptok.tokenization.plan import make_plan, shard_path
from adaptok.tokenization.shard_writer import ShardWriter
from adaptok.video.clips import iter_clips, pad_clip
from adaptok.video.geometry import Geometry
from adaptok.video.reading import VideoReader
from adaptok.video.sources import open_frames
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


def compare_workers(arguments: argparse.Namespace) -> dict[str, object]:
    """Compare one worker with two."""
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
    return {
        "clips_per_second": {"1": one, "2": two},
        "ratio": two / one,
        "ratios": [b / a for a, b in zip(rates[1], rates[2], strict=True)],
        "clips_per_second_with_start": {str(n): statistics.median(values) for n, values in whole.items()},
        "seconds_per_clip": {"one worker": 1 / one, "decoder": decoding, "model": computing},
    }


def choose_videos(collection: Path | None, count: int, folder: Path) -> None:
    """Link the first videos of a collection, or copies of the bundled clip, into a folder."""
    if collection is None:
        sample = Path(adaptok.__file__).parent / "assets" / "walk.mp4"
        for index in range(count):
            shutil.copy(sample, folder / f"{index:03d}.mp4")
        return
    paths = sorted(path for path in collection.iterdir() if path.suffix in VIDEO_SUFFIXES)[:count]
    if len(paths) < count:
        raise SystemExit(f"--clips {count}: {collection} has {len(paths)} videos")
    for path in paths:
        (folder / path.name).symlink_to(path.resolve())


def measure_pipeline(arguments: argparse.Namespace) -> dict[str, object]:
    """Compare tokenizing with the model alone."""
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    codec = AdapTok.from_pretrained(arguments.model, device=arguments.device)
    size = codec.config.tokenizer.size
    rates: dict[str, list[float]] = {"tokenize": [], "model": []}
    waiting = []
    with tempfile.TemporaryDirectory() as name:
        videos, out = Path(name) / "videos", Path(name) / "out"
        videos.mkdir()
        choose_videos(arguments.collection, arguments.clips, videos)
        options = TokenOptions(budget=codec.max_budget / 4, limit=1)
        plan = make_plan(videos, out, codec, options)
        clips = []
        for path in sorted(videos.iterdir()):
            with open_frames(path) as source:
                geometry = Geometry("crop", source.width, source.height, size)
                clip = next(iter_clips(source.frames, geometry.apply, codec.config.tokenizer.frames))[1]
                clips.append(pad_clip(clip, codec.config.tokenizer.frames))
        batches = torch.stack(clips).split(options.batch_size)
        codec.allocation_scores(codec.encode_clips(batches[0]))
        for _ in range(arguments.rounds):
            writer, started = ShardWriter(codec, plan, out), time.perf_counter()
            for number in range(len(plan.shards)):
                writer.write(number)
            elapsed = time.perf_counter() - started
            rates["tokenize"].append(len(clips) / elapsed)
            waiting.append(writer.waiting_seconds / elapsed)
            for number in range(len(plan.shards)):
                shard_path(out, number).unlink()
            started = time.perf_counter()
            for batch in batches:
                codec.allocation_scores(codec.encode_clips(batch)).cpu()
            rates["model"].append(len(clips) / (time.perf_counter() - started))
    return {
        "clips": len(clips),
        "threads": torch.get_num_threads(),
        "clips_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "fraction_of_model": [a / b for a, b in zip(rates["tokenize"], rates["model"], strict=True)],
        "waiting": waiting,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    pipeline = commands.add_parser("pipeline")
    pipeline.add_argument("--collection", type=Path)
    pipeline.add_argument("--clips", type=int, default=200)
    pipeline.add_argument("--model")
    pipeline.add_argument("--device", default="auto")
    pipeline.add_argument("--threads", type=int)
    pipeline.add_argument("--rounds", type=int, default=2)
    pipeline.set_defaults(run=measure_pipeline)
    workers = commands.add_parser("workers")
    workers.add_argument("--videos", type=int, default=16)
    workers.add_argument("--frames", type=int, default=96)
    workers.add_argument("--height", type=int, default=1080)
    workers.add_argument("--rounds", type=int, default=3)
    workers.set_defaults(run=compare_workers)
    arguments = parser.parse_args()
    print(json.dumps(arguments.run(arguments) | {"load": os.getloadavg()[0]}, indent=2))


if __name__ == "__main__":
    main()
