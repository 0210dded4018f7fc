"""Options and output that the evaluation commands share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

from adaptok.cli.evaluation_workers import pick_process_device
from adaptok.cli.options import Switch, option
from adaptok.cli.output import columns, output_folder, refuse_streams, say, show
from adaptok.config.choices import Metric

if TYPE_CHECKING:
    from adaptok.evaluation.estimate import Evaluation
    from adaptok.evaluation.measures import Measures
    from adaptok.evaluation.results import Report


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
    dry_run: Switch = False
    """Load models and weights, list the videos, and print what would be measured, without measuring it."""

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
            if os.environ.get("RANK", "0") == "0":  # of the processes of torchrun
                output_folder(self.output)
            yield self.output
            return
        with TemporaryDirectory() as folder:
            yield Path(folder)


def check_collection(*paths: Path | None) -> None:
    """Raise before models are loaded if a collection does not exist."""
    for path in paths:
        if path is not None:
            refuse_streams(path)
            if not path.exists():
                raise FileNotFoundError(f"{path}: no such folder or list of files")


def open_measures(
    command: Any, metrics: tuple[Metric, ...] | None, default: tuple[Metric, ...], quiet: bool
) -> Measures:
    """Load the networks of the metrics."""
    from adaptok.evaluation import measures

    files = measures.Weights(**vars(command.weights))

    def report(text: str) -> None:
        if not quiet:
            say(command.messages, text)

    return measures.open_measures(metrics, files, pick_process_device(command.computation.device), report, default)


def show_plan(command: Any, *evaluations: Evaluation) -> None:
    """Print what evaluations would measure."""
    from adaptok.evaluation.estimate import describe_evaluation

    documents = [describe_evaluation(evaluation) for evaluation in evaluations]
    text = "\n\n".join(_plan_text(document) for document in documents)
    show(command.messages, documents[0] if len(documents) == 1 else {"evaluations": documents}, text)


def _plan_text(document: dict[str, Any]) -> str:
    budgets = ", ".join(f"{budget:g}" for budget in document["budgets"])
    work = document["gflop_per_clip"]
    rows = {
        "protocol": f"{document['protocol']} ({document['kind']})",
        "videos": f"{document['videos']:,}, clips of {document['frames']} frames",
        "metrics": ", ".join(document["metrics"]),
        "skipped": "; ".join(f"{name} ({reason})" for name, reason in document["skipped_metrics"].items()),
        "model": document["model"],
        "generator": document["generator"],
        "budgets": f"{budgets} tokens per clip, scope {document['scope']}" if budgets else None,
        "batch": f"{document['batch_size']} clips share a budget" if document["batch_size"] else None,
        "work": None if work is None else f"{work:,.1f} GFLOP per clip in the models, at most",
        "memory": f"{document['weights_gb']:.2f} GB of weights",
    }
    return "\n".join(f"{name:<12}{value}" for name, value in rows.items() if value)


def show_report(command: Any, report: Report) -> None:
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
