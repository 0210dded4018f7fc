"""Check that memory, open files and threads do not grow during long work, and fail where they do.

python benchmarks/long_runs.py [encode] [decode] [stream] [train] [--minutes 10] [--clips 5000]

A tiny model with random weights encodes and decodes a video of ten minutes, as a file and as a stream, and 5,000
training clips are decoded in worker processes. Each kind of work runs in a process of its own, which notes its state
regularly. Between the first fifth of the work, in which caches fill, and the end, resident memory may grow by 64 MB,
and open files and threads by 4. Linux only.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from adaptok import AdapTok, VideoTokens
from adaptok.config.model import ModelConfig, ScorerConfig
from adaptok.config.optimization import BatchPlan
from adaptok.config.tokenizer import ScalarQuantizerConfig, TokenizerConfig
from adaptok.config.transformer import StackConfig
from adaptok.data.clips import ClipMixture
from adaptok.data.videos import VideoFolder
from adaptok.models.model import Model, weights_hash
from adaptok.training.batches import ProcessRank, iterate_batches
from adaptok.training.clip_data import ClipCollate
from adaptok.video.reading import VideoReader
from adaptok.video.writing import VideoWriter

Advance = Callable[[int], None]
FPS, BATCH = 30, 10
MAX_MEMORY, MAX_COUNT = 64e6, 4
"""Largest growth of resident memory in bytes, and of open files and threads."""
NOTES = 50
"""Number of times that the state is noted during the work."""


class State(NamedTuple):
    """State of a process and its children."""

    memory: int
    files: int
    threads: int


def state() -> State:
    """Return the resident memory in bytes, the open files and the threads of this process and of its children."""
    me = os.getpid()
    pids = [me, *(child.pid for child in multiprocessing.active_children() if child.pid is not None)]
    memory = files = threads = 0
    for pid in pids:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        memory += int(fields["VmRSS"].split()[0]) * 1024
        threads += int(fields["Threads"])
        files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return State(memory, files, threads)


def tiny_codec() -> AdapTok:
    """Return a model for clips of 8 frames of 16 × 16 pixels."""
    torch.manual_seed(0)
    stack = StackConfig(width=16, depth=1, heads=1)
    tokenizer = TokenizerConfig(
        frames=8,
        size=16,
        patch_size=8,
        temporal_patch_size=4,
        latents=8,
        encoder=stack,
        decoder=stack,
        quantizer=ScalarQuantizerConfig(levels=(5, 4, 4)),
    )
    scorer = ScorerConfig(width=16, depth=1, heads=1, length_step=2, distortion="mse", scale="log")
    model = Model(ModelConfig(name="tiny", tokenizer=tokenizer, scorer=scorer))
    return AdapTok(model, weights_hash(model.state_dict()))


def write_video(path: Path, frames: int) -> None:
    """Write moving noise of 64 × 48 pixels."""
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with VideoWriter(path, FPS) as writer:
        for index in range(frames):
            writer.write(np.roll(noise, index, 1))


def encode(folder: Path, total: int, advance: Advance) -> None:
    """Encode the video to a token file."""
    tiny_codec().encode(folder / "video.mp4", budget=10, progress=advance).save(folder / "video.adaptok")


def decode(folder: Path, total: int, advance: Advance) -> None:
    """Decode the token file, clip by clip."""
    for frames in tiny_codec().iter_decode(VideoTokens.load(folder / "video.adaptok")):
        advance(len(frames))


def stream(folder: Path, total: int, advance: Advance) -> None:
    """Push frames into one streaming session, and decode its blocks in another."""
    codec = tiny_codec()
    sender, receiver = codec.streaming(budget=10), codec.streaming(budget=10)
    with VideoReader(folder / "video.mp4") as reader:
        for block in sender.encode(reader):
            advance(len(receiver.decode(block)))


def train(folder: Path, total: int, advance: Advance, workers: int = 2) -> None:
    """Read training clips in worker processes, as a run does, with a cache that holds some of the videos."""
    data = ClipMixture([VideoFolder(str(folder / "clips"))], [1.0], frames=8, size=16, cache_bytes=2**20)
    plan = BatchPlan(BATCH, BATCH, 1)
    steps = range(total // BATCH)
    place = ProcessRank(0, 1)
    for batch in iterate_batches(data, ClipCollate(data), plan, place, steps, workers=workers, pin_memory=False):
        assert isinstance(batch.clips, torch.Tensor)
        advance(len(batch.clips))


WORK: dict[str, Callable[..., None]] = {"encode": encode, "decode": decode, "stream": stream, "train": train}


def run(name: str, folder: Path, total: int, connection: Connection) -> None:
    """Do one kind of work, and send its states and seconds."""
    torch.set_num_threads(1)
    states: list[State] = []
    done, started = 0, time.perf_counter()

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if done * NOTES >= len(states) * total:
            states.append(state())

    WORK[name](folder, total, advance)
    connection.send((states, time.perf_counter() - started))


def check(name: str, states: list[State], seconds: float) -> bool:
    """Print how the state changed after the first fifth, and return whether it grew too much."""
    early, late = states[: len(states) // 5 + 1], states[-len(states) // 5 :]
    before, after = (State(*map(max, zip(*part, strict=True))) for part in (early, late))
    memory, files, threads = (b - a for a, b in zip(before, after, strict=True))
    grew = memory > MAX_MEMORY or files > MAX_COUNT or threads > MAX_COUNT
    print(
        f"{name}: {seconds:.0f} s, {after.memory / 1e6:.0f} MB ({memory / 1e6:+.0f}), {after.files} open files"
        f" ({files:+d}), {after.threads} threads ({threads:+d}){': GROWS' if grew else ''}",
        flush=True,
    )
    return grew


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", nargs="*", choices=[*WORK, []], help=f"default: all of {', '.join(WORK)}")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clips", type=int, default=5000)
    options = parser.parse_args()
    frames = round(options.minutes * 60 * FPS)
    context, grew = multiprocessing.get_context("spawn"), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_video(folder / "video.mp4", frames)
        for index in range(40):
            write_video(folder / "clips" / f"{index:03d}.mp4", 60 + index)
        for work in options.work or WORK:
            receiver, sender = context.Pipe(duplex=False)
            total = options.clips if work == "train" else frames
            process = context.Process(target=run, args=(work, folder, total, sender))
            process.start()
            sender.close()
            states, seconds = receiver.recv()
            process.join()
            grew.append(check(work, states, seconds))
    return 1 if any(grew) else 0


if __name__ == "__main__":
    sys.exit(main())
