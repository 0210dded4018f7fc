"""Collections to tokenize, and the content of token datasets."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from adaptok.codec.codec import AdapTok
from adaptok.data.token_datasets import TokenClip, TokenDataset
from adaptok.models.model import Model, weights_hash
from adaptok.tokenization import TokenOptions
from adaptok.video.geometry import Geometry
from adaptok.video.reading import read_video
from adaptok.video.writing import VideoWriter
from tests.helpers.models import small_config

T, G, K, L, STEP, PT = 8, 4, 8, 4, 2, 2
"""Frames, blocks, latents per block, candidate lengths, their step, and frames per block of the small model."""


def small_codec() -> AdapTok:
    torch.manual_seed(0)
    model = Model(small_config())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return AdapTok(model, weights_hash(model.state_dict()))


def write_collection(folder: Path) -> None:
    """Write videos of 16 to 40 frames, one shorter than a clip, one cut off, and two files that are not videos."""
    for index, frames in enumerate((16, 27, 40, 24, 33)):
        write_brightening_video(folder / f"class{index % 2}" / f"{index}.mp4", frames, index)
    write_brightening_video(folder / "class0" / "short.mp4", 5, 9)
    write_brightening_video(folder / "class1" / "whole.mkv", 40, 10)
    whole = (folder / "class1" / "whole.mkv").read_bytes()
    (folder / "class1" / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "class1" / "zero.mp4").touch()
    (folder / "class0" / "text.mp4").write_text("no video")


def write_brightening_video(path: Path, frames: int, seed: int = 0) -> None:
    """Write noise that brightens, so that blocks need different lengths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 128, (frames, 6, 8, 3), dtype=np.uint8)
    with VideoWriter(path, 30) as writer:
        for index, frame in enumerate(noise):
            writer.write((frame * (index + 1) // frames + index).astype(np.uint8).repeat(8, 0).repeat(8, 1))


def options(**values) -> TokenOptions:
    return TokenOptions(**{"budget": 12, "shard_clips": 8, **values})


def rows(out: Path) -> list[dict]:
    return pq.read_table(sorted(out.glob("*.parquet"))).to_pylist()


def shards(out: Path) -> dict[str, tuple[int, int, bytes]]:
    """Return the inode, modification time and bytes of every shard."""
    states = {}
    for path in sorted(out.glob("*.parquet")):
        status = path.stat()
        states[path.name] = (status.st_ino, status.st_mtime_ns, path.read_bytes())
    return states


def contents(out: Path) -> dict[str, bytes]:
    return {name: data for name, (_, _, data) in shards(out).items()}


def clips_of(video: Path, stride: int) -> torch.Tensor:
    """Return the whole clips `[N, 3, T, S, S]` of a video, by slicing."""
    frames, _ = read_video(video)
    squares = Geometry("crop", frames.shape[2], frames.shape[1], 16).apply(frames)
    if squares.shape[1] < T:
        squares = torch.cat([squares, squares[:, -1:].expand(-1, T - squares.shape[1], -1, -1)], 1)
    return torch.stack([squares[:, i : i + T] for i in range(0, squares.shape[1] - T + 1, stride)])


def by_video(out: Path) -> dict[str, list[TokenClip]]:
    clips: dict[str, list[TokenClip]] = {}
    for clip in TokenDataset.open(out):
        clips.setdefault(clip.source, []).append(clip)
    return clips


def command(source, out, model, *arguments) -> list[str]:
    words = [sys.executable, "-m", "adaptok", "tokenize", source, "--out", out, "--model", model, "--device", "cpu"]
    return [str(word) for word in [*words, "--budget", 12, "--shard-clips", 4, *arguments]]
