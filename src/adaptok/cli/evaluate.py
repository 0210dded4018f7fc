"""`adaptok evaluate reconstruction`, `generation`, `prediction` and `files`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, get_args

from tyro.conf import Positional, subcommand

from adaptok.cli.evaluate_generation import Generation, Prediction
from adaptok.cli.evaluation_options import Run, Weights, check_collection, open_measures, show_plan, show_report
from adaptok.cli.evaluation_workers import measure, pick_process_device
from adaptok.cli.options import Budgets, Computation, Device, Messages, Switch, flatten, group, option
from adaptok.config.choices import DEFAULT_EFFORT, DType, Effort, Metric, ProtocolName, Scope

if TYPE_CHECKING:
    from adaptok.evaluation.pairs import PairsEvaluation
    from adaptok.evaluation.tokenizer import TokenizerEvaluation

OFFICIAL_METRICS: tuple[Metric, ...] = ("psnr", "lpips_vgg", "fvd")
OFFICIAL_SIZE = 128
OFFICIAL_BATCH_SIZE = 64


@dataclass(kw_only=True)
class EvaluatedTokenizer(Computation):
    """Which model to use, and where to compute."""

    batch_size: Annotated[int | None, option("N")] = None  # type: ignore[assignment]
    """Number of clips computed at once. The default is 4, and 64 for the protocol adaptok, whose scope batch shares a
    budget among the clips of a batch."""
    dtype: Annotated[DType | None, option("float32|bfloat16|float16")] = None  # type: ignore[assignment]
    """Floating-point format of weights and computation. The default is float32; for the protocol adaptok on a GPU, it
    is float32 with float16 autocast."""

    def resolved(self, official: bool) -> Computation:
        """The options with the defaults of a protocol."""
        return replace(
            self,
            device=str(pick_process_device(self.device)),
            batch_size=self.batch_size or (OFFICIAL_BATCH_SIZE if official else 4),
            dtype=self.dtype or "float32",
        )

    def check(self) -> None:
        if self.batch_size is not None:
            super().check()


@dataclass(kw_only=True)
class Reconstruction:
    """Measure how well a tokenizer reconstructs a collection of videos."""

    data: Annotated[Positional[Path], option("DATA")]
    """Folder of videos, searched recursively, or a list of them (.csv, .txt, .parquet)."""
    budget: Budgets = ()
    """Tokens per clip, on average. Several budgets are measured: separate them by spaces or commas. The defaults are an
    eighth, a quarter, a half and all of the maximum. For the protocol adaptok with a model of 4 blocks of 512 tokens,
    64, 128, … 512 are rows of the official table, by tokens per block: 256 gives 456, 242, 172 and 150."""
    scope: Annotated[Scope | None, option("video|clip|batch|stream")] = None
    """Which blocks share a budget: all blocks of a video, the blocks of one clip, the same block of a batch of clips,
    or the past of a live stream. The default is video, and batch for the protocol adaptok."""
    effort: Effort = DEFAULT_EFFORT
    """How much is computed to choose lengths, with the scopes video and clip: 0 scores all blocks once, 1 scores them
    again at the lengths that they would get, 2 also measures them at a few lengths near those, and 3 then at every
    length. Models whose scorer has the target block ignore it."""
    protocol: ProtocolName = "all"
    """all measures every whole clip of every video. adaptok is the published protocol: the first 16 frames of every
    video, sorted by path, with the short side resized and the centre cropped, in batches of 64 clips that share a
    budget, by PSNR, LPIPS-VGG and FVD. official is its former name."""
    uniform: Switch = False
    """Measure uniform lengths too. The protocol all always does."""
    fixed: Switch = False
    """Measure fixed patterns too, which give block i the same length in every clip, and report the one that is best on
    the other videos. Adaptive lengths should be better than that, not only than uniform ones. Every budget is decoded
    four more times."""
    metrics: Annotated[tuple[Metric, ...] | None, option("NAME [NAME …]")] = None
    """Metrics to measure: psnr, psnr_frame, ssim, ms_ssim, lpips_vgg, lpips_alex, edge_ratio, sharpness or fvd. The
    default is every metric of the protocol whose weights are available."""
    weights: Annotated[Weights, group("weight")] = field(default_factory=Weights)
    run_options: Annotated[Run, group("run")] = field(default_factory=Run)
    computation: Annotated[EvaluatedTokenizer, group("computation")] = field(default_factory=EvaluatedTokenizer)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        self.computation.check()
        check_collection(self.data)
        _run_clips(self)

    def plan(self, title: str, quiet: bool = False) -> TokenizerEvaluation:
        """Load the model and the networks of the metrics, and plan the evaluation."""
        import torch

        from adaptok.evaluation.tokenizer import TokenizerEvaluation

        official = self.protocol != "all"
        measures = open_measures(self, self.metrics, _default_metrics(self.protocol), quiet)
        computation = self.computation.resolved(official)
        codec = computation.load()
        half = official and codec.device.type == "cuda" and self.computation.dtype is None
        return TokenizerEvaluation(
            codec,
            measures,
            self.data,
            budgets=flatten(self.budget),
            scope=self.scope or ("batch" if official and codec.config.scorer is not None else "video"),
            protocol=self.protocol,
            batch_size=computation.batch_size,
            root=self.run_options.root,
            uniform=self.uniform or not official,
            effort=self.effort,
            fixed=self.fixed,
            autocast=torch.float16 if half else None,
        )


@dataclass(kw_only=True)
class Files:
    """Compare two folders of videos file by file, such as reconstructions by any program with their originals."""

    reference: Annotated[Path, option("FOLDER")]
    """Folder of the original videos."""
    prediction: Annotated[Path, option("FOLDER")]
    """Folder of the videos to measure. Videos of the same name are compared."""
    protocol: ProtocolName = "all"
    """all compares every whole clip of every video. adaptok compares the first clip, on 128 pixels, by PSNR, LPIPS-VGG
    and FVD. official is its former name."""
    size: Annotated[int | None, option("PIXELS")] = None
    """Side of the square on which videos are compared. The default is their own size."""
    frames: int = 16
    """Frames per clip. The default is the length of a clip of the bundled model."""
    patch_size: int = 16
    """Side of a patch in pixels, for the edge ratio. The default is the patch size of the bundled model."""
    metrics: Annotated[tuple[Metric, ...] | None, option("NAME [NAME …]")] = None
    """Metrics to measure: psnr, psnr_frame, ssim, ms_ssim, lpips_vgg, lpips_alex, edge_ratio, sharpness or fvd. The
    default is every metric of the protocol whose weights are available."""
    weights: Annotated[Weights, group("weight")] = field(default_factory=Weights)
    run_options: Annotated[Run, group("run")] = field(default_factory=Run)
    computation: Annotated[Device, group("computation")] = field(default_factory=Device)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        if self.patch_size < 2:
            raise ValueError(f"--patch-size {self.patch_size}, expected 2 pixels or more")
        if min(self.frames, self.size or 1) < 1:
            raise ValueError(f"--frames {self.frames} --size {self.size}, expected 1 or more")
        check_collection(self.reference, self.prediction)
        _run_clips(self)

    def plan(self, title: str, quiet: bool = False) -> PairsEvaluation:
        """Load the networks of the metrics, and plan the evaluation."""
        from adaptok.evaluation.pairs import PairsEvaluation

        measures = open_measures(self, self.metrics, _default_metrics(self.protocol), quiet)
        return PairsEvaluation(
            measures,
            self.reference,
            self.prediction,
            protocol=self.protocol,
            frames=self.frames,
            size=OFFICIAL_SIZE if self.size is None and self.protocol != "all" else self.size,
            patch_size=self.patch_size,
            device=pick_process_device(self.computation.device),
        )


@dataclass(kw_only=True)
class Evaluate:
    """Measure the quality of reconstructions, or of generated or predicted videos."""

    notes: ClassVar[str] = (
        "An interrupted evaluation resumes when it is started again with the same arguments and report folder."
    )

    command: (
        Annotated[Reconstruction, subcommand("reconstruction")]
        | Annotated[Generation, subcommand("generation")]
        | Annotated[Prediction, subcommand("prediction")]
        | Annotated[Files, subcommand("files")]
    )


def _default_metrics(protocol: ProtocolName) -> tuple[Metric, ...]:
    return get_args(Metric) if protocol == "all" else OFFICIAL_METRICS


def _run_clips(command: Reconstruction | Files) -> None:
    """Measure the clips of an evaluation, and report the results."""
    from adaptok.evaluation.examples import load_examples
    from adaptok.evaluation.fixed_patterns import FittedResults
    from adaptok.evaluation.report.build import build, write
    from adaptok.evaluation.summary import summarize
    from adaptok.utils.system import describe_machine

    command.run_options.check()
    if command.run_options.dry_run:
        show_plan(command, command.plan("measuring"))
        return
    with command.run_options.folder() as folder:
        evaluation = command.plan("measuring")
        results = measure(command, folder, evaluation, "measuring")
        if results is None:
            return  # a process of torchrun that is not the first
        if results.plan.patterns:
            results = FittedResults(results)
        summary = summarize(results, evaluation.variants, evaluation.tokens)
        machine = describe_machine(pick_process_device(command.computation.device))
        report = build(results, summary, evaluation.measures.skipped, machine, evaluation.measures.hashes)
        if command.run_options.output is not None:
            examples = load_examples(evaluation, results, summary.examples)
            write(command.run_options.output, report, results, summary, examples)
        show_report(command, report)
