"""Measure the peak memory of `adaptok encode` and `adaptok decode` for a long and a short video.

python benchmarks/long_video.py [--short 20] [--long 600] [--size 640x360]

The videos repeat the bundled sample at 30 frames per second. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F

from adaptok.video.reading import read_video
from adaptok.video.writing import VideoWriter

RATE = 30


def make_video(path: Path, seconds: float, width: int, height: int) -> None:
    """Write the sample, played forwards and backwards, scaled to this size."""
    with as_file(files("adaptok") / "assets" / "walk.mp4") as sample:
        frames, _ = read_video(sample)
    scaled = F.interpolate(torch.from_numpy(frames).permute(0, 3, 1, 2).float(), size=(height, width), mode="bilinear")
    pictures = scaled.round().byte().permute(0, 2, 3, 1).numpy()
    turn = np.concatenate([np.arange(len(pictures)), np.arange(len(pictures) - 2, 0, -1)])
    with VideoWriter(path, RATE, crf=28) as writer:
        for index in range(round(seconds * RATE)):
            writer.write(pictures[turn[index % len(turn)]])


MEASURED = """
import sys
from adaptok.cli.main import main
main(sys.argv[1:])
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
"""Program that runs one command and prints its peak resident memory in KiB. The figure that `wait` reports for a child
includes the memory of its parent before the child started."""


def run(*arguments: str | Path) -> tuple[float, float]:
    """Run one command; return its seconds and its peak resident memory in MB."""
    started = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, *map(str, arguments), "--quiet", "--device", "cpu"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return time.perf_counter() - started, int(done.stdout) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", type=float, default=20)
    parser.add_argument("--long", type=float, default=600)
    parser.add_argument("--size", default="640x360")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    memory: dict[str, list[float]] = {"encode": [], "decode": []}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for seconds in (options.short, options.long):
            video, tokens, back = (folder / f"{seconds:g}{suffix}" for suffix in (".mp4", ".adaptok", "-back.mp4"))
            make_video(video, seconds, width, height)
            for command, source, target in (("encode", video, tokens), ("decode", tokens, back)):
                took, peak = run(command, source, target)
                memory[command].append(peak)
                print(f"{command} {seconds:g} s of {options.size}: {took:.1f} s, peak {peak:.0f} MB", flush=True)
    for command, (short, long) in memory.items():
        print(f"{command}: {long - short:+.0f} MB for the long video")


if __name__ == "__main__":
    main()
