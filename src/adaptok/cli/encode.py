"""`adaptok encode VIDEO [TOKENS]`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from adaptok.cli.audio import remember_sound
from adaptok.cli.folders import find_jobs, run_jobs
from adaptok.cli.inputs import STANDARD_INPUT, StreamInputs, VideoInput, note_images, open_standard_input
from adaptok.cli.options import (
    Computation,
    InputLimits,
    Messages,
    QualityLengths,
    Switch,
    WholeFrames,
    excerpt_arguments,
    fit_arguments,
    group,
    option,
)
from adaptok.cli.output import TOKEN_SUFFIXES, Advance, one_output, output_path, progress, say, show, warn
from adaptok.cli.quality_targets import QualitySearch, check_quality_flags, quality_document
from adaptok.config.choices import AudioMode

if TYPE_CHECKING:
    from adaptok.codec.codec import AdapTok
    from adaptok.codec.token_file import VideoTokens
    from adaptok.evaluation.quality_target import QualityResult
    from adaptok.video.sources import FrameSource


@dataclass(kw_only=True)
class Encode:
    """Encode a video, or every video of a folder, into token files."""

    video: Annotated[Positional[str], option("VIDEO")]
    """Video file or GIF to read; a folder whose videos are all encoded, with mirrored sub-folders; a folder that holds
    the frames of one video as images; a URL (--allow-url); or - for standard input (--stream). 'adaptok tokenize'
    writes the token datasets that generators train on."""
    out: Annotated[Positional[Path | None], option("[TOKENS]")] = None
    """Token file to write (.adaptok), or a folder for those of a folder. The default is the name of the video with the
    suffix .adaptok, or that of the folder followed by -encoded, in the current folder. Standard input needs a name."""
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
    inputs: Annotated[StreamInputs, group("input")] = field(default_factory=StreamInputs)
    lengths: Annotated[QualityLengths, group("length")] = field(default_factory=QualityLengths)
    frames: Annotated[WholeFrames, group("frame")] = field(default_factory=WholeFrames)
    maxima: Annotated[InputLimits, group("limit")] = field(default_factory=InputLimits)
    computation: Annotated[Computation, group("computation")] = field(default_factory=Computation)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        if self.inputs.stream:
            if self.lengths.scope not in ("video", "stream"):
                raise ValueError(f"--stream with --scope {self.lengths.scope}, expected the scope stream or none")
            self.lengths = replace(self.lengths, scope="stream")
        check_quality_flags(self.lengths, [] if self.lengths.budget is None else [self.lengths.budget])
        if self.video == STANDARD_INPUT:
            self._run_standard_input()
            return
        source = VideoInput.check(self.video, self.inputs)
        if source.is_collection:
            assert source.path is not None
            self._run_folder(source.path)
        else:
            self._run_video(source)

    def _run_video(self, source: VideoInput) -> None:
        from adaptok.video.reading import probe
        from adaptok.video.sources import count_frames

        out = one_output(self.out, self.output, Path(f"{source.name}{TOKEN_SUFFIXES[0]}"))
        assert out is not None
        if self.skip_existing and out.is_file() and not self.force:
            show(self.messages, {"out": str(out), "skipped": True}, f"{out}: exists, skipped")
            return
        output_path(out, self.force, source.paths, TOKEN_SUFFIXES)
        codec = self.computation.load()
        search = self._open_search(codec)
        with source.open(self.messages, self.frames.fps) as video:
            total = count_frames(video, self.frames.start, self.frames.stop, self.frames.fps, self.maxima.limits)
            with progress(self.messages, "encoding", total, "frames") as advance:
                tokens = self._encode(codec, video, advance)
            tokens, quality = self._reach_quality(search, video, tokens, self.messages)
            if source.path is not None:
                tokens = self._remember_sound(tokens, source.path, out)
            elif self.audio == "copy" and probe(video, self.maxima.limits).audio:
                say(self.messages, "note: the sound is dropped, as the video is a URL; download it to keep its sound")
        tokens.save(out)
        warn(tokens.warning)
        self._report(tokens, out, quality)

    def _run_standard_input(self) -> None:
        from adaptok.video.container import VideoError

        out = one_output(self.out, self.output, None)
        if out is None:
            raise ValueError("-: no name for the token file; give it after the hyphen, such as stream.adaptok")
        output_path(out, self.force, suffixes=TOKEN_SUFFIXES)
        self.inputs.check_standard_input()
        source = open_standard_input(self.inputs, self.frames, self.maxima)
        codec = self.computation.load()
        with progress(self.messages, "encoding", None, "frames") as advance:
            tokens = self._encode(codec, source, advance)
        tokens.save(out)
        self._report(tokens, out)
        if tokens.warning:  # the sender has failed
            raise VideoError(f"{tokens.warning}, and their tokens are in {out}")

    def _encode(self, codec: AdapTok, video: Path | FrameSource, advance: Advance | None = None) -> VideoTokens:
        return codec.encode(
            video,
            self.lengths.budget,
            self.lengths.scope,
            target=self.lengths.target,
            uniform=self.lengths.uniform and not self.lengths.seeks_quality,
            effort=self.lengths.effort,
            keep_scores=self.scores or self.lengths.seeks_quality,
            progress=advance,
            **fit_arguments(self.frames),
            **excerpt_arguments(self.frames, self.computation.batch_size, self.maxima.limits),
        )

    def _open_search(self, codec: AdapTok) -> QualitySearch | None:
        excerpt = excerpt_arguments(self.frames, self.computation.batch_size, self.maxima.limits)
        return QualitySearch.open(self.lengths, codec, excerpt)

    def _reach_quality(
        self, search: QualitySearch | None, video: Path, tokens: VideoTokens, messages: Messages
    ) -> tuple[VideoTokens, QualityResult | None]:
        """Shorten all tokens to the fewest that reach a quality, if one is asked for."""
        if search is None:
            return tokens, None
        found = search.find(video, tokens, messages)
        return (found.tokens if self.scores else replace(found.tokens, scores=None)), found

    def _remember_sound(self, tokens: VideoTokens, video: Path, out: Path) -> VideoTokens:
        """Return tokens that say where the sound is, unless it is to be dropped, or the video is a folder of frames."""
        if self.audio == "drop" or video.is_dir():
            return tokens
        return remember_sound(tokens, video, out, self.frames.start)

    def _report(self, tokens: VideoTokens, out: Path, quality: QualityResult | None = None) -> None:
        from adaptok.cli.describe import describe_loss, describe_tokens, tokens_document

        if note := describe_loss(tokens):
            say(self.messages, note)
        document = {"out": str(out), **tokens_document(tokens), "warning": tokens.warning, **quality_document(quality)}
        reached = "" if quality is None else f"; {quality.describe()}"
        show(self.messages, document, f"{out}: {describe_tokens(tokens)}{reached}")

    def _run_folder(self, folder: Path) -> None:
        from functools import partial

        from adaptok.allocation.policy import LengthPolicy
        from adaptok.cli.describe import tokens_document
        from adaptok.video.folders import list_videos
        from adaptok.video.read_ahead import ReadAheadVideos
        from adaptok.video.sources import open_frames

        if self.workers < 1:
            raise ValueError(f"--workers {self.workers}, expected 1 or more")
        out = one_output(self.out, self.output, Path(f"{folder.resolve().name}-encoded"))
        assert out is not None
        jobs = find_jobs(folder, out, list_videos, TOKEN_SUFFIXES[0], force=self.force)
        note_images(self.messages, folder, self.frames.fps)
        codec = self.computation.load()
        search, quiet = self._open_search(codec), replace(self.messages, quiet=True)
        lengths, frames = self.lengths, self.frames
        codec.check_policy(LengthPolicy(lengths.budget, lengths.scope, lengths.target, lengths.uniform))
        limits = self.maxima.limits
        open_video = partial(open_frames, start=frames.start, stop=frames.stop, fps=frames.fps, limits=limits)
        with ReadAheadVideos([path for path, _ in jobs.jobs], open_video, self.workers) as videos:

            def work(path: Path, made: Path) -> dict[str, Any]:
                with videos.take() as source:
                    tokens = self._encode(codec, source)
                tokens, quality = self._reach_quality(search, path, tokens, quiet)
                tokens = self._remember_sound(tokens, path, made)
                tokens.save(made)
                warn(tokens.warning)
                document = {"out": str(made), **tokens_document(tokens), "warning": tokens.warning}
                return {**document, **quality_document(quality)}

            run_jobs(self.messages, "encoding", jobs, out, work)
