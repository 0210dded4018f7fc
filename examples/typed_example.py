"""A tour of the Python interface, in which every value has its type. `mypy --strict` checks it in CI.

Usage: python examples/typed_example.py [VIDEO]

Without a video, it uses the sample clip and the models that adaptok includes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image

from adaptok import (
    AdapTok,
    Allocation,
    BlockTokens,
    CheckpointError,
    EncodedClips,
    Generator,
    LengthPolicy,
    Limits,
    Samples,
    Sampling,
    Streaming,
    TokenFileError,
    TokenInfo,
    TokenMismatchError,
    VideoError,
    VideoTokens,
    allocate,
)

Frames = npt.NDArray[np.uint8]


def encode_and_decode(codec: AdapTok, path: Path) -> Frames:
    """Encode the first half second of a video, save and load its tokens, and decode them."""
    limits: Limits = Limits(max_pixels=1920 * 1080, max_duration=3600)
    tokens: VideoTokens = codec.encode(path, budget=256, stop=0.5, limits=limits)
    info: TokenInfo = tokens.info
    print(f"{len(tokens)} tokens for {info.frames} frames of {info.width}x{info.height} at {float(info.fps):g} fps")
    print(tokens.truncate(128))
    with TemporaryDirectory() as folder:
        tokens.save(Path(folder) / "clip.adaptok")
        tokens = VideoTokens.load(Path(folder) / "clip.adaptok")
    frames: Frames = codec.decode(tokens)
    tensor: torch.Tensor = codec.decode(tokens, output="torch")
    images: list[Image] = codec.decode(tokens, output="pil")
    assert len(frames) == len(tensor) == len(images) == info.frames
    return frames


def encode_batch(codec: AdapTok) -> list[VideoTokens]:
    """Encode two separate videos, each with a budget of its own."""
    videos = torch.rand(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    return codec.encode_batch(videos, budget=128)


def stream(codec: AdapTok, frames: Frames) -> Iterator[Frames]:
    """Send frames one by one, as a camera gives them, and decode each block as soon as it is complete."""
    sender: Streaming = codec.streaming(budget=256)
    blocks: list[BlockTokens] = []
    for frame in frames:
        blocks += sender.push(frame)
    blocks += sender.flush()
    receiver: Streaming = codec.streaming()
    for block in blocks:
        yield receiver.decode(block)


def allocate_by_hand(codec: AdapTok) -> Allocation:
    """Score the blocks of two clips, and choose lengths for a budget with the solver itself."""
    size = codec.config.tokenizer.size
    clips = torch.rand(2, 3, 16, size, size, generator=torch.Generator().manual_seed(0))
    encoded: EncodedClips = codec.encode_clips(clips)
    scores: npt.NDArray[np.float32] = codec.score_clips(encoded, normalized=False).flatten(0, 1).cpu().numpy()
    codec.check_policy(LengthPolicy(budget=256, scope="clip"))
    return allocate(scores, 2 * 256, length_step=codec.length_step)


def generate(generator: Generator) -> torch.Tensor:
    """Generate the first tokens of a clip of each of two classes: float32 `[2, 3, T, S, S]`."""
    samples: Samples = generator.sample(["spin", "bounce"], budget=8, temperature=0.7, seeds=[0, 1])
    for _, clip in generator.iter_sample(["spin"], settings=Sampling(budget=4), seeds=[2]):
        print(f"{int(clip.lengths.sum())} ids")
    return generator.decode(samples)


def main(path: Path) -> None:
    """Run every part of the tour."""
    codec: AdapTok = AdapTok.from_pretrained(device="cpu", dtype="float32").to("auto")
    print(codec)
    frames = encode_and_decode(codec, path)
    print([len(tokens) for tokens in encode_batch(codec)])
    print(sum(len(block) for block in stream(codec, frames[:6])), "frames streamed")
    allocation = allocate_by_hand(codec)
    print(allocation.lengths.tolist(), f"within {allocation.gap:.2g} of the optimum")
    generator: Generator = Generator.from_pretrained(codec=codec)
    print(generator)
    print(tuple(generate(generator).shape))


if __name__ == "__main__":
    try:
        if len(sys.argv) > 1:
            main(Path(sys.argv[1]))
        else:
            with as_file(files("adaptok") / "assets" / "walk.mp4") as sample:
                main(sample)
    except (CheckpointError, TokenFileError, TokenMismatchError, VideoError) as error:
        sys.exit(f"error: {error}")
