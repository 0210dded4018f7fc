"""`adaptok decode TOKENS [VIDEO]`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from adaptok.cli.options import Computation, Messages, Switch, group, option
from adaptok.cli.output import VIDEO_SUFFIXES, input_path, one_output, output_path, progress, show


@dataclass(kw_only=True)
class Decode:
    """Decode a token file into a video."""

    tokens: Annotated[Positional[Path], option("TOKENS")]
    """Token file to read."""
    out: Annotated[Positional[Path | None], option("[VIDEO]")] = None
    """Video to write (.mp4, .m4v, .mov or .mkv). The default is the name of the token file with the suffix .mp4, in the
    current folder."""
    output: Annotated[Path | None, option("VIDEO", "-o")] = None
    """The same as the argument VIDEO."""
    budget: Annotated[float | None, option("N")] = None
    """Drop tokens first, down to this number per clip on average. Needs a token file with scores. All tokens are
    decoded by default."""
    square: Switch = False
    """Write what the model sees instead of the original frame size: its square, or the whole frame at its scale."""
    any_model: Switch = False
    """Decode even if another model wrote the tokens, as long as their shapes match."""
    force: Switch = False
    """Overwrite an existing video."""
    computation: Annotated[Computation, group("computation")] = field(default_factory=Computation)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.codec.token_file import VideoTokens
        from adaptok.video.writing import VideoWriter

        source = input_path(self.tokens)
        out = one_output(self.out, self.output, Path(source.name).with_suffix(".mp4"))
        assert out is not None
        output_path(out, self.force, [source], VIDEO_SUFFIXES)
        tokens = VideoTokens.load(source)
        if self.budget is not None:
            tokens = tokens.truncate(self.budget)
        codec = self.computation.load()
        codec.check_tokens(tokens, any_model=self.any_model)
        info = tokens.info
        with (
            progress(self.messages, "decoding", info.frames, "frames") as advance,
            VideoWriter(out, info.fps) as writer,
        ):
            for frames in codec.iter_decode(
                tokens,
                original=not self.square,
                any_model=self.any_model,
                batch_size=self.computation.batch_size,
                progress=advance,
            ):
                writer.write(frames)
        height, width = info.geometry.canvas if self.square else (info.height, info.width)
        document = {
            "out": str(out),
            "frames": info.frames,
            "rate": info.rate,
            "width": width,
            "height": height,
            "tokens": tokens.tokens,
        }
        show(self.messages, document, f"{out}: {info.frames} frames from {tokens.tokens} tokens")
