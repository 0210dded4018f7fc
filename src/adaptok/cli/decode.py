"""`adaptok decode TOKENS VIDEO`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from adaptok.cli.common import Common, output_path
from adaptok.cli.encode import parse_one
from adaptok.codec.token_file import VideoTokens
from adaptok.video.writing import VideoWriter


@dataclass(kw_only=True)
class Decode(Common):
    """Decode a token file into a video."""

    tokens: Positional[Path]
    """Token file."""
    out: Positional[Path | None] = None
    """Video to write (.mp4); the token file's name with .mp4 if not given."""
    budget: str | None = None
    """Shorten tails to this many tokens per clip first; needs a file with scores."""
    square: bool = False
    """Give the model's square instead of the original size."""
    any_model: bool = False
    """Decode although another model wrote the tokens, as far as they fit."""

    def run(self) -> None:
        out = output_path(self.out or Path(self.tokens.name).with_suffix(".mp4"), self.force, [self.tokens])
        tokens = VideoTokens.load(self.tokens)
        if self.budget is not None:
            tokens = tokens.truncate(*parse_one(self.budget))
        codec = self.load()
        codec.check_tokens(tokens, any_model=self.any_model)
        info = tokens.info
        with self.progress("decoding", info.frames) as progress, VideoWriter(out, info.fps) as writer:
            for frames in codec.iter_decode(
                tokens,
                original=not self.square,
                any_model=self.any_model,
                batch_size=self.batch_size,
                progress=progress,
            ):
                writer.write(frames)
        document = {
            "out": str(out),
            "frames": info.frames,
            "rate": info.rate,
            "width": info.size if self.square else info.width,
            "height": info.size if self.square else info.height,
            "tokens": tokens.tokens,
        }
        self.result(document, f"{out}: {info.frames} frames from {tokens.tokens} tokens")
