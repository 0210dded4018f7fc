"""`adaptok encode VIDEO [TOKENS]`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from adaptok.cli.audio import remember_sound
from adaptok.cli.folders import find_jobs, run_jobs
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
from adaptok.cli.output import TOKEN_SUFFIXES, Advance, input_path, one_output, output_path, progress, say, show, warn
from adaptok.config.choices import AudioMode

if TYPE_CHECKING:
    from adaptok.codec.codec import AdapTok
    from adaptok.codec.token_file import VideoTokens
    from adaptok.video.sources import FrameSource


@dataclass(kw_only=True)
class Encode:
    """Encode a video, or every video of a folder, into token files."""

    video: Annotated[Positional[Path], option("VIDEO")]
    """Video file to read, or a folder whose videos are all encoded; its sub-folders are mirrored. 'adaptok tokenize'
    writes the token datasets that generators train on."""
    out: Annotated[Positional[Path | None], option("[TOKENS]")] = None
    """Token file to write (.adaptok), or a folder for those of a folder. The default is the name of the video with the
    suffix .adaptok, or that of the folder followed by -encoded, in the current folder."""
    output: Annotated[Path | None, option("TOKENS", "-o")] = None
    """The same as the argument TOKENS."""
    scores: bool = True
    """Store the predicted distortions, so that the token file can be shortened later without the model."""
    audio: AudioMode = "copy"
    """Whether the token file remembers where the sound of the video is, so that 'adaptok decode' can copy it. Sound is
    never encoded."""
    force: Switch = False
    """Overwrite existing token files. Without it, those of a folder are skipped."""
    skip_existing: Switch = False
    """Do nothing where the token file exists. This is how folders are encoded in any case, unless --force is given."""
    workers: int = 1
    """Number of videos of a folder whose frames are read ahead, each in a thread, while the model computes."""
    lengths: Annotated[Lengths, group("length")] = field(default_factory=Lengths)
    frames: Annotated[WholeFrames, group("frame")] = field(default_factory=WholeFrames)
    computation: Annotated[Computation, group("computation")] = field(default_factory=Computation)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.cli.describe import describe_loss, describe_tokens, tokens_document
        from adaptok.video.reading import probe

        if self.video.is_dir():
            self._run_folder()
            return
        video = input_path(self.video)
        out = one_output(self.out, self.output, Path(video.name).with_suffix(TOKEN_SUFFIXES[0]))
        assert out is not None
        if self.skip_existing and out.is_file() and not self.force:
            show(self.messages, {"out": str(out), "skipped": True}, f"{out}: exists, skipped")
            return
        output_path(out, self.force, [video], TOKEN_SUFFIXES)
        codec = self.computation.load()
        with progress(self.messages, "encoding", probe(video).frames, "frames") as advance:
            tokens = self._encode(codec, video, video, out, advance)
        warn(tokens.warning)
        if note := describe_loss(tokens):
            say(self.messages, note)
        document = {"out": str(out), **tokens_document(tokens), "warning": tokens.warning}
        show(self.messages, document, f"{out}: {describe_tokens(tokens)}")

    def _encode(
        self, codec: AdapTok, video: Path, frames: Path | FrameSource, out: Path, advance: Advance | None = None
    ) -> VideoTokens:
        """Encode a video, of which `frames` are the path or the frames, and write the token file."""
        tokens = codec.encode(
            frames,
            self.lengths.budget,
            self.lengths.scope,
            target=self.lengths.target,
            uniform=self.lengths.uniform,
            keep_scores=self.scores,
            progress=advance,
            **fit_arguments(self.frames),
            **excerpt_arguments(self.frames, self.computation.batch_size),
        )
        if self.audio == "copy":
            tokens = remember_sound(tokens, video, out, self.frames.start)
        tokens.save(out)
        return tokens

    def _run_folder(self) -> None:
        from functools import partial

        from adaptok.allocation.policy import LengthPolicy
        from adaptok.cli.describe import tokens_document
        from adaptok.data.manifests import VIDEO_SUFFIXES
        from adaptok.video.read_ahead import ReadAheadVideos
        from adaptok.video.sources import open_frames

        if self.workers < 1:
            raise ValueError(f"--workers {self.workers}, expected 1 or more")
        out = one_output(self.out, self.output, Path(f"{self.video.resolve().name}-encoded"))
        assert out is not None
        jobs = find_jobs(self.video, out, VIDEO_SUFFIXES, TOKEN_SUFFIXES[0], force=self.force)
        codec = self.computation.load()
        lengths, frames = self.lengths, self.frames
        codec.check_policy(LengthPolicy(lengths.budget, lengths.scope, lengths.target, lengths.uniform))
        open_video = partial(open_frames, start=frames.start, stop=frames.stop, fps=frames.fps)
        with ReadAheadVideos([path for path, _ in jobs.jobs], open_video, self.workers) as videos:

            def work(path: Path, made: Path) -> dict[str, Any]:
                with videos.take() as source:
                    tokens = self._encode(codec, path, source, made)
                warn(tokens.warning)
                return {"out": str(made), **tokens_document(tokens), "warning": tokens.warning}

            run_jobs(self.messages, "encoding", jobs, out, work)
