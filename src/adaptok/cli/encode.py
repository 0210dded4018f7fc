"""`adaptok encode VIDEO [TOKENS]`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from adaptok.cli.options import (
    Computation,
    Lengths,
    Messages,
    Switch,
    WholeFrames,
    excerpt_arguments,
    fit_arguments,
    group,
    option,
)
from adaptok.cli.output import TOKEN_SUFFIXES, input_path, one_output, output_path, progress, say, show, warn


@dataclass(kw_only=True)
class Encode:
    """Encode a video into a token file."""

    video: Annotated[Positional[Path], option("VIDEO")]
    """Video file to read. To encode a whole folder, see 'adaptok tokenize'."""
    out: Annotated[Positional[Path | None], option("[TOKENS]")] = None
    """Token file to write (.adaptok). The default is the name of the video with the suffix .adaptok, in the current
    folder."""
    output: Annotated[Path | None, option("TOKENS", "-o")] = None
    """The same as the argument TOKENS."""
    scores: bool = True
    """Store the predicted distortions, so that the token file can be shortened later without the model."""
    force: Switch = False
    """Overwrite an existing token file."""
    lengths: Annotated[Lengths, group("length")] = field(default_factory=Lengths)
    frames: Annotated[WholeFrames, group("frame")] = field(default_factory=WholeFrames)
    computation: Annotated[Computation, group("computation")] = field(default_factory=Computation)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.cli.describe import describe_loss, describe_tokens, tokens_document
        from adaptok.video.reading import probe

        video = input_path(self.video, folder_command="tokenize")
        out = one_output(self.out, self.output, Path(video.name).with_suffix(TOKEN_SUFFIXES[0]))
        assert out is not None
        output_path(out, self.force, [video], TOKEN_SUFFIXES)
        codec = self.computation.load()
        with progress(self.messages, "encoding", probe(video).frames, "frames") as advance:
            tokens = codec.encode(
                video,
                self.lengths.budget,
                self.lengths.scope,
                target=self.lengths.target,
                uniform=self.lengths.uniform,
                keep_scores=self.scores,
                progress=advance,
                **fit_arguments(self.frames),
                **excerpt_arguments(self.frames, self.computation.batch_size),
            )
        tokens.save(out)
        warn(tokens.warning)
        if note := describe_loss(tokens):
            say(self.messages, note)
        document = {"out": str(out), **tokens_document(tokens), "warning": tokens.warning}
        show(self.messages, document, f"{out}: {describe_tokens(tokens)}")
