"""`adaptok reconstruct VIDEO [OUT]`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from adaptok.cli.folders import find_jobs, run_jobs
from adaptok.cli.inputs import STANDARD_INPUT, Inputs, VideoInput, note_images
from adaptok.cli.options import (
    Computation,
    InputLimits,
    LengthsForBudgets,
    Messages,
    Switch,
    WholeFrames,
    excerpt_arguments,
    fit_arguments,
    flatten,
    group,
    option,
)
from adaptok.cli.output import (
    FIGURE_SUFFIXES,
    VIDEO_SUFFIXES,
    one_output,
    output_path,
    progress,
    say,
    show,
    warn,
)
from adaptok.cli.quality_targets import QualitySearch, check_quality_flags, quality_document
from adaptok.config.choices import AudioMode

if TYPE_CHECKING:
    from torch import Tensor

    from adaptok.codec.codec import AdapTok
    from adaptok.codec.token_file import VideoTokens
    from adaptok.evaluation.quality_target import QualityResult
    from adaptok.evaluation.reconstruction import ReconstructionReport
    from adaptok.video.sound import Sound


@dataclass(kw_only=True)
class Reconstruct:
    """Encode and decode a video, or every video of a folder, and report the quality and the tokens."""

    video: Annotated[Positional[str], option("VIDEO")]
    """Video file or GIF to read; a folder whose videos are all reconstructed, with mirrored sub-folders; a folder that
    holds the frames of one video as images; or a URL (--allow-url)."""
    out: Annotated[Positional[Path | None], option("[OUT]")] = None
    """Reconstructed video to write (.mp4, .m4v, .mov or .mkv). With several budgets, one video per budget is written,
    and the budget is added to its name. For a folder, the folder to write. No video is written by default."""
    output: Annotated[Path | None, option("OUT", "-o")] = None
    """The same as the argument OUT."""
    side_by_side: Switch = False
    """Show the original beside the reconstruction, above a chart of the tokens per block."""
    compare_uniform: Switch = False
    """Reconstruct with a uniform number of tokens per block too, and show both reconstructions in the figure and in the
    side-by-side video. Needs a budget."""
    plot: Annotated[Path | None, option("FIGURE")] = None
    """Figure to write (.png, .pdf or .svg), with frames, tokens over time, and predicted and measured distortion. No
    figure is written by default."""
    audio: AudioMode = "copy"
    """Whether the sound of the video is copied into the reconstructed ones."""
    force: Switch = False
    """Overwrite existing outputs. Without it, videos of a folder whose outputs exist are skipped."""
    skip_existing: Switch = False
    """Skip videos of a folder whose outputs exist, which is also the default there."""
    inputs: Annotated[Inputs, group("input")] = field(default_factory=Inputs)
    lengths: Annotated[LengthsForBudgets, group("length")] = field(default_factory=LengthsForBudgets)
    frames: Annotated[WholeFrames, group("frame")] = field(default_factory=WholeFrames)
    maxima: Annotated[InputLimits, group("limit")] = field(default_factory=InputLimits)
    computation: Annotated[Computation, group("computation")] = field(default_factory=Computation)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.cli.describe import describe_loss

        if self.video == STANDARD_INPUT:
            raise ValueError(
                "-: standard input can be read only once, and comparing needs the video twice; encode it with"
                " 'adaptok encode - TOKENS --stream', and decode the tokens"
            )
        self._check()
        source = VideoInput.check(self.video, self.inputs)
        if source.is_collection:
            assert source.path is not None
            self._run_folder(source.path)
            return
        out = one_output(self.out, self.output, None)
        budgets: list[float | None] = list(flatten(self.lengths.budget)) or [None]
        outputs = self._check_outputs(source, out, budgets)
        codec = self.computation.load()
        search = self._open_search(codec)
        with source.open(self.messages, self.frames.fps) as video:
            reports, quality = self._reconstruct(codec, video, budgets, outputs, search)
        warn(reports[0].tokens.warning)
        if note := describe_loss(reports[0].tokens):
            say(self.messages, note)
        self._report(budgets, outputs, reports, quality)

    def _open_search(self, codec: AdapTok) -> QualitySearch | None:
        excerpt = excerpt_arguments(self.frames, self.computation.batch_size, self.maxima.limits)
        return QualitySearch.open(self.lengths, codec, excerpt)

    def _reconstruct(
        self,
        codec: AdapTok,
        video: Path,
        budgets: list[float | None],
        outputs: list[Path | None],
        search: QualitySearch | None,
    ) -> tuple[list[ReconstructionReport], QualityResult | None]:
        """Reconstruct the video for each budget, or at a quality, and write the outputs."""
        from adaptok.cli.reconstruction_outputs import SampledFrames, VideoOutput
        from adaptok.evaluation.reconstruction import compare

        encodings, quality = self._encode(codec, video, budgets), None
        if search is not None:
            quality = search.find(video, encodings[0][1], self.messages)
            encodings = [(None, quality.tokens)]
        compared = [tokens for pair in encodings for tokens in pair if tokens is not None]
        with ExitStack() as stack:
            writers = [
                stack.enter_context(VideoOutput(pair, path, self.side_by_side, self._sound(video, path)))
                for pair, path in zip(encodings, outputs, strict=True)
            ]
            samples = SampledFrames(compared[0].info.frames, len(compared))

            def visit(original: Tensor, decoded: list[Tensor]) -> None:
                samples.visit(original, decoded)
                for writer in writers:
                    clips, decoded = decoded[: len(writer.encodings)], decoded[len(writer.encodings) :]
                    writer.visit([original, *clips])

            with progress(self.messages, "decoding", compared[0].info.frames, "frames") as advance:
                options = excerpt_arguments(self.frames, self.computation.batch_size, self.maxima.limits)
                reports = compare(codec, video, compared, progress=advance, visit=visit, **options)
        if self.plot is not None:
            from adaptok.evaluation.report.figures import save_figure

            kinds = ["uniform", "adaptive"] * len(budgets) if self.compare_uniform else None
            save_figure(self.plot, reports, samples.original, samples.decoded, kinds)
        return reports, quality

    def _run_folder(self, folder: Path) -> None:
        from adaptok.video.folders import list_videos

        budgets: list[float | None] = list(flatten(self.lengths.budget)) or [None]
        if self.plot is not None or len(budgets) > 1:
            raise ValueError("a folder with --plot or several budgets, expected one video for them")
        out = one_output(self.out, self.output, None)
        jobs = find_jobs(folder, out, list_videos, ".mp4", force=self.force)
        note_images(self.messages, folder, self.frames.fps)
        codec = self.computation.load()
        search, quiet = self._open_search(codec), replace(self.messages, quiet=True)

        def work(path: Path, made: Path) -> dict[str, Any]:
            alone = replace(self, messages=quiet)
            reports, quality = alone._reconstruct(codec, path, budgets, [None if out is None else made], search)
            warn(reports[-1].tokens.warning)
            document = {"budget": budgets[0], **_document(reports[-1]), "out": None if out is None else str(made)}
            return {**document, **quality_document(quality)}

        run_jobs(self.messages, "reconstructing", jobs, out, work)

    def _sound(self, video: Path, out: Path | None) -> Sound | None:
        from adaptok.video.sound import open_sound

        return None if out is None or self.audio == "drop" else open_sound(video, self.frames.start)

    def _check(self) -> None:
        """Raise ValueError for options that do not go together."""
        if self.side_by_side and self.out is None and self.output is None:
            raise ValueError("--side-by-side needs a video to write; name it after the input")
        check_quality_flags(self.lengths, flatten(self.lengths.budget))
        if not self.compare_uniform:
            return
        if self.lengths.uniform:
            raise ValueError("--compare-uniform with --uniform has nothing to compare; leave out --uniform")
        if self.lengths.target is not None or not self.lengths.budget:
            raise ValueError("--compare-uniform needs a budget; give --budget instead of a target")
        if self.lengths.scope not in ("video", "clip"):
            raise ValueError(f"--compare-uniform with --scope {self.lengths.scope}, expected the scope video or clip")

    def _check_outputs(self, source: VideoInput, out: Path | None, budgets: list[float | None]) -> list[Path | None]:
        """Check all outputs; return the video to write for each budget."""
        if self.plot is not None:
            from adaptok.utils.extras import require

            output_path(self.plot, self.force, source.paths, FIGURE_SUFFIXES)
            require("matplotlib", extra="eval", purpose="--plot")
        if out is None:
            return [None] * len(budgets)
        names = [out]
        if len(budgets) > 1:
            names = [out.with_stem(f"{out.stem}-{budget:g}") for budget in budgets]
        return [output_path(name, self.force, source.paths, VIDEO_SUFFIXES) for name in names]

    def _encode(
        self, codec: AdapTok, video: Path, budgets: list[float | None]
    ) -> list[tuple[VideoTokens | None, VideoTokens]]:
        """Encode the video for each budget.

        Returns:
            The uniform encoding (None unless requested) and the requested encoding, for each budget. Where the scope
            permits, the video is encoded once and its tokens are shortened.
        """
        from adaptok.video.sources import count_frames

        lengths, excerpt = self.lengths, self.frames
        limits = self.maxima.limits
        frames = count_frames(video, excerpt.start, excerpt.stop, excerpt.fps, limits)
        options = {**fit_arguments(self.frames), **excerpt_arguments(self.frames, self.computation.batch_size, limits)}
        uniform = lengths.uniform and not lengths.seeks_quality  # all tokens are kept first
        if self.compare_uniform or (lengths.scope in ("video", "clip") and len(budgets) > 1):
            return self._encode_and_shorten(codec, video, budgets, frames, options)
        encodings: list[tuple[VideoTokens | None, VideoTokens]] = []
        for budget in budgets:
            with progress(self.messages, "encoding", frames, "frames") as advance:
                tokens = codec.encode(
                    video,
                    budget,
                    lengths.scope,
                    target=lengths.target,
                    uniform=uniform,
                    effort=lengths.effort,
                    progress=advance,
                    **options,
                )
            encodings.append((None, tokens))
        return encodings

    def _encode_and_shorten(
        self,
        codec: AdapTok,
        video: Path,
        budgets: list[float | None],
        frames: int | None,
        options: dict[str, Any],
    ) -> list[tuple[VideoTokens | None, VideoTokens]]:
        """Encode the video with all tokens, and shorten them to each budget.

        It is encoded once, unless scores depend on the budget.
        """
        from adaptok.allocation.policy import LengthPolicy
        from adaptok.codec.encoding import EncodingOptions, encode_videos

        lengths = self.lengths
        policies = [LengthPolicy(each, lengths.scope, None, lengths.uniform, lengths.effort) for each in budgets]
        for policy in policies:
            policy.check(codec.layout)
        if codec.config.scorer is None and not lengths.uniform:
            raise ValueError(f"the model {codec.config.name!r} has no scorer; give --uniform, or use another model")

        full: VideoTokens | None = None
        encodings: list[tuple[VideoTokens | None, VideoTokens]] = []
        for policy in policies:
            if full is None or codec.used_effort(policy):
                with progress(self.messages, "encoding", frames, "frames") as advance:
                    [full] = encode_videos(
                        codec, [video], LengthPolicy(), EncodingOptions(**options, scored_for=policy), advance
                    )
            even = replace(policy, uniform=True) if self.compare_uniform else None
            encodings.append((None if even is None else codec.shorten(full, even), codec.shorten(full, policy)))
        return encodings

    def _report(
        self,
        budgets: list[float | None],
        outputs: list[Path | None],
        reports: list[ReconstructionReport],
        quality: QualityResult | None,
    ) -> None:
        documents: list[dict[str, Any]] = []
        lines = []
        each = 2 if self.compare_uniform else 1
        for index, (budget, out) in enumerate(zip(budgets, outputs, strict=True)):
            *uniform, report = reports[index * each : (index + 1) * each]
            documents.append({"budget": budget, **_document(report), "out": None if out is None else str(out)})
            kind = ", adaptive" if uniform else ""
            lines.append(_line(report) + kind + (f"  {out}" if out is not None else ""))
            lines.append("       tokens per block: " + _row(report.tokens.block_tokens.tolist()))
            if quality is not None:
                documents[-1] |= quality_document(quality)
                lines.append(f"       {quality.describe()}")
            if uniform:
                documents[-1]["uniform"] = _document(uniform[0])
                lines.append(f"{_line(uniform[0])}, uniform")
        document = documents[0] if len(documents) == 1 else {"results": documents}
        show(
            self.messages,
            {**document, "plot": None if self.plot is None else str(self.plot)},
            "\n".join(lines),
        )


def _document(report: ReconstructionReport) -> dict[str, Any]:
    from adaptok.cli.describe import tokens_document

    return {
        "psnr": report.psnr,
        "ssim": report.ssim,
        **tokens_document(report.tokens),
        "predicted": report.predicted.tolist(),
        "actual": report.actual,
        "rank_correlation": report.correlation,
        "warning": report.tokens.warning,
    }


def _line(report: ReconstructionReport) -> str:
    tokens = report.tokens
    return (
        f"{report.psnr:6.2f} dB PSNR  {report.ssim:.3f} SSIM  {tokens.tokens:7d} tokens "
        f"({tokens.tokens_per_second:.0f} per second, {tokens.bits / 8 / 1024:.1f} KiB)"
    )


def _row(lengths: list[int], limit: int = 40) -> str:
    text = " ".join(str(length) for length in lengths[:limit])
    return text if len(lengths) <= limit else f"{text} … ({len(lengths)} blocks)"
