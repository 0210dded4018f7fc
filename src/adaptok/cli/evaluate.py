"""`adaptok evaluate reconstruction`, `generation`, `prediction` and `files`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

from tyro.conf import Positional, subcommand

from adaptok.cli.evaluation_workers import measure, pick_process_device
from adaptok.cli.options import Budgets, Computation, Device, Messages, Switch, flatten, group, option
from adaptok.cli.output import columns, refuse_streams, say, show
from adaptok.config.choices import GenerationKind, Metric, ProtocolName, Scope

if TYPE_CHECKING:
    from adaptok.evaluation.generation import Side
    from adaptok.evaluation.measures import Measures
    from adaptok.evaluation.pairs import FeaturesEvaluation, PairsEvaluation
    from adaptok.evaluation.results import Report
    from adaptok.evaluation.tokenizer import TokenizerEvaluation
    from adaptok.metrics.frechet import FeatureStatistics

OFFICIAL_METRICS: tuple[Metric, ...] = ("psnr", "lpips_vgg", "fvd")
OFFICIAL_SIZE = 128


@dataclass(kw_only=True)
class Weights:
    """Pretrained networks of the metrics. Metrics whose weights are missing are left out of the report."""

    lpips_vgg: Annotated[Path | None, option("FILE")] = None
    """Weights of LPIPS with VGG16: torchvision's vgg16-397923af.pth, or a safetensors file with the convolutions and,
    optionally, the channel weights. Channel weights that the file lacks are taken from torchmetrics."""
    lpips_alex: Annotated[Path | None, option("FILE")] = None
    """Weights of LPIPS with AlexNet: torchvision's alexnet-owt-7be5be79.pth, or a safetensors file as above."""
    fvd: Annotated[Path | None, option("FILE")] = None
    """The detector of FVD: i3d_kinetics400.safetensors, or the TorchScript program i3d_torchscript.pt."""
    fvd_sha256: Annotated[str | None, option("HASH")] = None
    """Expected SHA-256 of the file of --fvd. It is required for another TorchScript program than the published one,
    because the program will be executed."""
    download: Switch = False
    """Download missing weights into the cache (up to 800 MB). Metrics named with --metrics are always downloaded."""


@dataclass(kw_only=True)
class Run:
    """How the evaluation runs, and where its report goes."""

    output: Annotated[Path | None, option("FOLDER", "-o")] = None
    """Folder of the report to write. An interrupted evaluation resumes in it. No report is written by default."""
    workers: int = 1
    """Number of processes on this machine. torchrun starts processes on several."""
    force: Switch = False
    """Discard the results of an evaluation with other options in the folder."""
    root: Annotated[Path | None, option("FOLDER")] = None
    """Folder that relative paths of a list refer to. The default is the folder of the list."""

    def check(self) -> None:
        """Raise if the report cannot be written."""
        if self.workers < 1:
            raise ValueError(f"--workers {self.workers}, expected 1 or more")
        if self.output is not None:
            from adaptok.evaluation.report.clip_table import check_report_packages

            refuse_streams(self.output)
            if self.output.is_file():
                raise ValueError(f"{self.output}: a file, expected a folder for the report")
            check_report_packages()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """The folder of the report, or a temporary one for partial results."""
        if self.output is not None:
            yield self.output
            return
        with TemporaryDirectory() as folder:
            yield Path(folder)


@dataclass(kw_only=True)
class Reconstruction:
    """Measure how well a tokenizer reconstructs a collection of videos."""

    data: Annotated[Positional[Path], option("DATA")]
    """Folder of videos, searched recursively, or a list of them (.csv, .txt, .parquet)."""
    budget: Budgets = ()
    """Tokens per clip, on average. Several budgets are measured: separate them by spaces or commas. The defaults are an
    eighth, a quarter, a half and all of the maximum."""
    scope: Scope = "video"
    """Which blocks share a budget: all blocks of a video, the blocks of one clip, the same block of a batch of clips,
    or the past of a live stream."""
    protocol: ProtocolName = "all"
    """all measures every whole clip of every video. official measures the first 16 frames of every video, with the
    short side resized and the centre cropped, by PSNR, LPIPS-VGG and FVD."""
    metrics: Annotated[tuple[Metric, ...] | None, option("NAME [NAME …]")] = None
    """Metrics to measure: psnr, psnr_frame, ssim, ms_ssim, lpips_vgg, lpips_alex, edge_ratio, sharpness or fvd. The
    default is every metric of the protocol whose weights are available."""
    weights: Annotated[Weights, group("weight")] = field(default_factory=Weights)
    run_options: Annotated[Run, group("run")] = field(default_factory=Run)
    computation: Annotated[Computation, group("computation")] = field(default_factory=Computation)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        self.computation.check()
        _check_collection(self.data)
        _run_clips(self)

    def plan(self, title: str, quiet: bool = False) -> TokenizerEvaluation:
        """Load the model and the networks of the metrics, and plan the evaluation."""
        from adaptok.evaluation.tokenizer import TokenizerEvaluation

        device = pick_process_device(self.computation.device)
        measures = _open_measures(self, self.metrics, _default_metrics(self.protocol), quiet)
        codec = replace(self.computation, device=str(device)).load()
        return TokenizerEvaluation(
            codec,
            measures,
            self.data,
            budgets=flatten(self.budget),
            scope=self.scope,
            protocol=self.protocol,
            batch_size=self.computation.batch_size,
            root=self.run_options.root,
        )


@dataclass(kw_only=True)
class Files:
    """Compare two folders of videos file by file, such as reconstructions by any program with their originals."""

    reference: Annotated[Path, option("FOLDER")]
    """Folder of the original videos."""
    prediction: Annotated[Path, option("FOLDER")]
    """Folder of the videos to measure. Videos of the same name are compared."""
    protocol: ProtocolName = "all"
    """all compares every whole clip of every video. official compares the first clip, on 128 pixels, by PSNR, LPIPS-VGG
    and FVD."""
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
        _check_collection(self.reference, self.prediction)
        _run_clips(self)

    def plan(self, title: str, quiet: bool = False) -> PairsEvaluation:
        """Load the networks of the metrics, and plan the evaluation."""
        from adaptok.evaluation.pairs import PairsEvaluation

        measures = _open_measures(self, self.metrics, _default_metrics(self.protocol), quiet)
        return PairsEvaluation(
            measures,
            self.reference,
            self.prediction,
            protocol=self.protocol,
            frames=self.frames,
            size=OFFICIAL_SIZE if self.size is None and self.protocol == "official" else self.size,
            patch_size=self.patch_size,
            device=pick_process_device(self.computation.device),
        )


@dataclass(kw_only=True)
class Generation:
    """Measure generated videos against a collection by FVD: 10,000 samples of 128 pixels."""

    kind: ClassVar[GenerationKind] = "class"

    data: Annotated[Positional[Path | None], option("[DATA]")] = None
    """Collection to compare with: a folder of videos, or a list of them (.csv, .txt, .parquet). Give this or
    --statistics."""
    samples: Annotated[Path, option("FOLDER")]
    """Folder of the generated videos."""
    statistics: Annotated[tuple[Path, ...], option("FILE [FILE …]")] = ()
    """Feature statistics of the collection from earlier reports, instead of DATA. Several are merged."""
    count: Annotated[int | None, option("N")] = None
    """Number of samples to take. The default is the number of the published protocol."""
    weights: Annotated[Weights, group("weight")] = field(default_factory=Weights)
    run_options: Annotated[Run, group("run")] = field(default_factory=Run)
    computation: Annotated[Device, group("computation")] = field(default_factory=Device)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.evaluation.generation import build_generation, write_generation
        from adaptok.utils.system import describe_machine

        if (self.data is None) == (not self.statistics):
            raise ValueError("samples are compared with DATA or with --statistics; give one of them")
        if self.count is not None and self.count < 1:
            raise ValueError(f"--count {self.count}, expected 1 or more")
        _check_collection(self.data, self.samples)
        self.run_options.check()
        with self.run_options.folder() as folder:
            sides = self._measure_sides(folder)
            if "samples" not in sides:
                return  # a process of torchrun that is not the first
            real = sides["reference"].statistics if "reference" in sides else self._merge_statistics(sides["samples"])
            machine = describe_machine(pick_process_device(self.computation.device))
            report = build_generation(self.kind, sides, real, machine)
            if self.run_options.output is not None:
                write_generation(self.run_options.output, report, real, sides["samples"].statistics)
            _show_report(self, report)

    def _measure_sides(self, folder: Path) -> dict[str, Side]:
        """Compute the features of the samples and of the collection."""
        from adaptok.evaluation.generation import Side

        sides: dict[str, Side] = {}
        for side, data in (("samples", self.samples), ("reference", self.data)):
            if data is None:
                continue
            features = self.plan(side)
            results = measure(self, folder / f"{side}-features", features, side)
            if results is not None:
                sides[side] = Side.of(results)
        return sides

    def plan(self, title: str, quiet: bool = False) -> FeaturesEvaluation:
        """Load the detector, and plan one side: "samples" or "reference"."""
        from adaptok.evaluation.pairs import FeaturesEvaluation
        from adaptok.evaluation.protocols import GENERATION

        protocol = GENERATION[self.kind]
        is_sample = title == "samples"
        data = self.samples if is_sample else self.data
        assert data is not None
        return FeaturesEvaluation(
            _open_measures(self, ("fvd",), ("fvd",), quiet),
            data,
            size=protocol.size,
            count=(self.count or protocol.count) if is_sample else None,
            root=None if is_sample else self.run_options.root,
            device=pick_process_device(self.computation.device),
            real=not is_sample,
        )

    def _merge_statistics(self, samples: Side) -> FeatureStatistics:
        """Load the statistics of the collection, and check that they follow the protocol of the samples."""
        from adaptok.metrics.frechet import FeatureStatistics, merge

        real = merge(FeatureStatistics.load(path) for path in self.statistics)
        for name, value in samples.statistics.provenance.items():
            if real.provenance.get(name) != value:
                raise ValueError(
                    f"{self.statistics[0]}: {name} {real.provenance.get(name)!r}, the samples have {value!r}; compute"
                    " the statistics again from the data"
                )
        return real


@dataclass(kw_only=True)
class Prediction(Generation):
    """Measure predicted videos against a collection by FVD: 50,000 samples of 64 pixels."""

    kind: ClassVar[GenerationKind] = "frame"


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


def _check_collection(*paths: Path | None) -> None:
    """Raise before models are loaded if a collection does not exist."""
    for path in paths:
        if path is not None:
            refuse_streams(path)
            if not path.exists():
                raise FileNotFoundError(f"{path}: no such folder or list of files")


def _default_metrics(protocol: ProtocolName) -> tuple[Metric, ...]:
    return OFFICIAL_METRICS if protocol == "official" else get_args(Metric)


def _open_measures(
    command: Any, metrics: tuple[Metric, ...] | None, default: tuple[Metric, ...], quiet: bool
) -> Measures:
    """Load the networks of the metrics."""
    from adaptok.evaluation import measures

    files = measures.Weights(**vars(command.weights))

    def report(text: str) -> None:
        if not quiet:
            say(command.messages, text)

    return measures.open_measures(metrics, files, pick_process_device(command.computation.device), report, default)


def _run_clips(command: Reconstruction | Files) -> None:
    """Measure the clips of an evaluation, and report the results."""
    from adaptok.evaluation.examples import load_examples
    from adaptok.evaluation.report.build import build, write
    from adaptok.evaluation.summary import summarize
    from adaptok.utils.system import describe_machine

    command.run_options.check()
    with command.run_options.folder() as folder:
        evaluation = command.plan("measuring")
        results = measure(command, folder, evaluation, "measuring")
        if results is None:
            return  # a process of torchrun that is not the first
        summary = summarize(results, evaluation.variants, evaluation.tokens)
        machine = describe_machine(pick_process_device(command.computation.device))
        report = build(results, summary, evaluation.measures.skipped, machine)
        if command.run_options.output is not None:
            examples = load_examples(evaluation, results, summary.examples)
            write(command.run_options.output, report, results, summary, examples)
        _show_report(command, report)


def _show_report(command: Any, report: Report) -> None:
    from adaptok.evaluation.report.build import HTML_FILE
    from adaptok.evaluation.report.page import facts, tables

    means: dict[str, Any] = {}
    if report.kind != "tokenizer":
        [result] = report.results
        means = result.main.model_dump(exclude_unset=True)
    skipped = report.skipped_metrics
    lines = [f"{name}: {value}" for name, value in facts(report) if name.split()[0] not in skipped]
    for _, head, rows in tables(report):
        lines += ["", *columns([head, *rows])]
    if command.run_options.output is not None:
        lines += ["", f"{command.run_options.output / HTML_FILE}"]
    show(command.messages, {**means, **report.document()}, "\n".join(lines))
