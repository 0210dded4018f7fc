"""`adaptok evaluate DATA`, `… --reference DIR --prediction DIR`, `… DATA --samples DIR`."""

from __future__ import annotations

import multiprocessing
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import torch
from tyro.conf import Positional

from adaptok.cli.common import Common, progress
from adaptok.config.choices import GenerationKind, ProtocolName, Scope
from adaptok.evaluation.examples import load_examples
from adaptok.evaluation.generation import Side, build_generation, write_generation
from adaptok.evaluation.measures import Measures, Metric, Weights, open_measures
from adaptok.evaluation.pairs import FeaturesEvaluation, PairsEvaluation
from adaptok.evaluation.partial_results import PartialResults, Task
from adaptok.evaluation.protocols import GENERATION
from adaptok.evaluation.report.build import HTML_FILE, build, write
from adaptok.evaluation.report.clip_table import check_report_packages
from adaptok.evaluation.report.page import columns, facts, tables
from adaptok.evaluation.results import Report
from adaptok.evaluation.summary import summarize
from adaptok.evaluation.tokenizer import TokenizerEvaluation
from adaptok.metrics.frechet import FeatureStatistics, merge
from adaptok.utils.devices import pick_device
from adaptok.utils.system import describe_machine

OFFICIAL_METRICS: tuple[Metric, ...] = ("psnr", "lpips_vgg", "fvd")
OFFICIAL_SIZE = 128
_WAIT = 60.0


@dataclass(kw_only=True)
class Evaluate(Common):
    """Measure a model on a collection, two folders of videos against each other, or samples against a data set.

    An evaluation that was stopped goes on where it was; several processes (--workers, or torchrun) share one. What is
    measured, and how, is in docs/evaluation.md.
    """

    data: Positional[Path | None] = None
    """Folder of videos, searched recursively, or a list of them (.csv, .txt, .parquet)."""
    budgets: tuple[float, ...] = ()
    """Tokens per clip, on average; an eighth, a quarter, a half and all of the most if not given."""
    scope: Scope = "video"
    """What shares a budget: each video, each clip, the same block of a batch of clips, or a stream."""
    protocol: ProtocolName = "all"
    """all: all whole clips of every video. official: the first 16 frames of every video, short side resized, centre
    cropped; PSNR, LPIPS-VGG and FVD."""
    reference: Path | None = None
    """Folder of videos that are true, for --prediction."""
    prediction: Path | None = None
    """Folder of videos to compare with those of the same name."""
    samples: Path | None = None
    """Folder of generated videos, to compare with the data as a whole (FVD)."""
    generation: GenerationKind = "class"
    """What the samples are: class-conditional (10,000 of 128 pixels), or frame prediction (50,000 of 64 pixels)."""
    count: int | None = None
    """Samples to take, where not the protocol's."""
    statistics: tuple[Path, ...] = ()
    """Feature statistics of the data from earlier reports, merged; instead of the data, for --samples."""
    metrics: tuple[Metric, ...] | None = None
    """What must be measured; everything whose weights are at hand if not given."""
    lpips_vgg: Path | None = None
    """Weights of LPIPS with VGG16: a safetensors file of the convolutions and, optionally, of the channel
    weights, or torchvision's vgg16-397923af.pth. Channel weights that the file does not hold come with torchmetrics."""
    lpips_alex: Path | None = None
    """The same for LPIPS with AlexNet; torchvision's file is alexnet-owt-7be5be79.pth."""
    fvd: Path | None = None
    """The detector i3d_torchscript.pt."""
    fvd_sha256: str | None = None
    """SHA-256 of the file of --fvd, where it is another detector: it is a program, and will be run."""
    download: bool = False
    """Fetch weights that are not there into the cache (up to 800 MB); --metrics fetches those of what it names."""
    size: int | None = None
    """Pixels of the square that two folders are compared on; their own size if not given."""
    frames: int = 16
    """Of a clip, for two folders."""
    patch_size: int = 16
    """Side of a patch in pixels, for the edge ratio of two folders; 16 as in the bundled model. A model has its own."""
    root: Path | None = None
    """Where relative paths in a list start; the folder of the list if not given."""
    workers: int = 1
    """Processes on this machine."""
    out: Path | None = None
    """Folder of the report; none is written if not given."""

    def run(self) -> None:
        self._check()
        if self.out is not None:
            check_report_packages()
        with ExitStack() as stack:
            folder = self.out or Path(stack.enter_context(TemporaryDirectory()))
            if self.samples is not None:
                self._run_generation(folder)
            else:
                self._run_clips(folder)

    def _check(self) -> None:
        pair = self.reference is not None, self.prediction is not None
        if any(pair) and not all(pair):
            raise ValueError("--reference and --prediction go together; give both")
        if self.samples is not None and (self.data is None) == (not self.statistics):
            raise ValueError("--samples is compared with DATA or with --statistics; give one of them")
        if self.samples is None and (self.data is None) == (not all(pair)):
            raise ValueError("nothing to evaluate: give DATA, or --reference and --prediction, or DATA and --samples")
        if self.samples is None and (self.statistics or self.count is not None):
            raise ValueError("--statistics and --count are for --samples")
        if not all(pair) and (self.size is not None or self.frames != 16 or self.patch_size != 16):
            raise ValueError(
                "--size, --frames and --patch-size are for --reference and --prediction; a model has its own"
            )
        if self.patch_size < 2:
            raise ValueError(f"--patch-size {self.patch_size}, expected 2 pixels or more")
        if min(self.workers, self.frames, self.size or 16, self.count or 1) < 1:
            raise ValueError("--workers, --frames, --size and --count are 1 or more")

    # Models, and pairs of folders.

    def open(self, quiet: bool = False) -> tuple[PairsEvaluation | TokenizerEvaluation, Measures]:
        """What the flags ask for, its networks and model loaded."""
        device = pick_device(self._device())
        measures = self._measures(device, quiet)
        if self.reference is not None and self.prediction is not None:
            size = OFFICIAL_SIZE if self.size is None and self.protocol == "official" else self.size
            pairs = PairsEvaluation(
                measures,
                self.reference,
                self.prediction,
                protocol=self.protocol,
                frames=self.frames,
                size=size,
                patch_size=self.patch_size,
                device=device,
            )
            return pairs, measures
        assert self.data is not None
        tokenizer = TokenizerEvaluation(
            replace(self, device=str(device)).load(),
            measures,
            self.data,
            budgets=self.budgets,
            scope=self.scope,
            protocol=self.protocol,
            batch_size=self.batch_size,
            root=self.root,
        )
        return tokenizer, measures

    def _measures(self, device: torch.device, quiet: bool) -> Measures:
        default: tuple[Metric, ...] = get_args(Metric)
        if self.samples is not None:
            default = ("fvd",)
        elif self.protocol == "official":
            default = OFFICIAL_METRICS
        wanted = ("fvd",) if self.samples is not None else self.metrics
        weights = Weights(self.lpips_vgg, self.lpips_alex, self.fvd, self.fvd_sha256, self.download)
        return open_measures(wanted, weights, device, (lambda _: None) if quiet else self.say, default)

    def _device(self) -> str:
        """Under torchrun, and with several workers, each process has a graphics card of its own where there are any."""
        if self.device != "auto" or not torch.cuda.is_available():
            return self.device
        return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"

    def _run_clips(self, folder: Path) -> None:
        evaluation, measures = self.open()
        parts = self._measure(folder, evaluation, "measuring")
        if parts is None:
            return
        summary = summarize(parts, evaluation.variants, evaluation.tokens)
        machine = describe_machine(pick_device(self._device()))
        report = build(parts, summary, measures.skipped, machine)
        if self.out is not None:
            write(self.out, report, parts, summary, load_examples(evaluation, parts, summary.examples))
        self._tell(report)

    def _tell(self, report: Report) -> None:
        means: dict[str, Any] = {}
        if report.kind != "tokenizer":
            [result] = report.results
            means = result.main.model_dump(exclude_unset=True)
        skipped = report.skipped_metrics
        lines = [f"{name}: {value}" for name, value in facts(report) if name.split()[0] not in skipped]
        for _, head, rows in tables(report):
            lines += ["", *columns([head, *rows])]
        if self.out is not None:
            lines += ["", f"{self.out / HTML_FILE}"]
        self.result({**means, **report.document()}, "\n".join(lines))

    # Processes.

    def _measure(self, folder: Path, task: Task, title: str) -> PartialResults | None:
        """Everything measured; None for a process of torchrun that is not the first, whose part is done."""
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        if world > 1 and self.out is None:
            raise ValueError("several processes meet in the folder of the report; give --out")
        if rank:
            parts = PartialResults(folder, task.plan, wait=_WAIT)
            parts.measure(task, rank, world)
            return None
        parts = PartialResults(folder, task.plan, force=self.force)
        children = self._start(folder) if world == 1 and self.workers > 1 else []
        shares = world if world > 1 else len(children) + 1
        try:
            with progress(title, len(task.plan.videos), "videos", self.quiet) as advance:
                parts.measure(task, 0, shares, advance)
                parts.wait(advance, lambda: _check_alive(children))
        finally:
            for child in children:
                child.terminate() if child.is_alive() and parts.missing() else child.join()
        return parts

    def _start(self, folder: Path) -> list[BaseProcess]:
        """The other workers."""
        if self.device == "auto" and not torch.cuda.is_available():
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.workers))
        context = multiprocessing.get_context("spawn")
        children = [context.Process(target=_work, args=(self, rank, folder)) for rank in range(1, self.workers)]
        for child in children:
            child.start()
        return list(children)

    # Samples.

    def _run_generation(self, folder: Path) -> None:
        assert self.samples is not None
        protocol, device = GENERATION[self.generation], pick_device(self._device())
        measures = self._measures(device, False)
        sides: dict[str, Side] = {}
        for side, data, count in (
            ("samples", self.samples, self.count or protocol.count),
            ("reference", self.data, None),
        ):
            if data is None:
                continue
            root = self.root if side == "reference" else None
            features = FeaturesEvaluation(
                measures, data, size=protocol.size, frames=self.frames, count=count, root=root, device=device
            )
            parts = self._measure(folder / f"{side}-features", features, side)
            if parts is not None:
                sides[side] = Side.of(parts)
        if "samples" in sides:
            real = sides["reference"].statistics if "reference" in sides else self._statistics(sides["samples"])
            report = build_generation(self.generation, sides, real, describe_machine(device))
            if self.out is not None:
                write_generation(self.out, report, real, sides["samples"].statistics)
            self._tell(report)

    def _statistics(self, made: Side) -> FeatureStatistics:
        """Those of the data, from files, which must be of the same protocol."""
        real = merge(FeatureStatistics.load(path) for path in self.statistics)
        for name, value in made.statistics.provenance.items():
            if real.provenance.get(name) != value:
                raise ValueError(
                    f"{self.statistics[0]}: {name} {real.provenance.get(name)!r}, the samples have {value!r}; compute"
                    " the statistics again from the data"
                )
        return real


def _work(command: Evaluate, rank: int, folder: Path) -> None:
    """One of several workers: its share of the units. What it fails with is one line, as for the first."""
    try:
        _work_on(command, rank, folder)
    except KeyboardInterrupt:
        sys.exit(1)
    except (ValueError, OSError, ImportError) as error:
        print(f"adaptok: error: worker {rank}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


def _work_on(command: Evaluate, rank: int, folder: Path) -> None:
    if command.device == "auto" and not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // command.workers))
    os.environ["LOCAL_RANK"] = str(rank)
    quiet = replace(command, quiet=True)
    evaluation, _ = quiet.open(quiet=True)
    PartialResults(folder, evaluation.plan, wait=_WAIT).measure(evaluation, rank, command.workers)


def _check_alive(children: list[BaseProcess]) -> None:
    for child in children:
        if child.exitcode:
            raise ValueError("a worker stopped before its share was done (what it said is above); run it again")
