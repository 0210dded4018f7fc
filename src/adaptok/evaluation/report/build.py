"""The files of a report: `report.json`, `metrics.parquet`, `report.md`, `report.html`, and feature statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from adaptok.evaluation.examples import Example
from adaptok.evaluation.partial_results import PartialResults
from adaptok.evaluation.plan import Plan
from adaptok.evaluation.protocols import PROTOCOLS
from adaptok.evaluation.report.clip_table import TABLE_FILE, write_table
from adaptok.evaluation.report.page import html_page, markdown_page
from adaptok.evaluation.results import (
    FORMAT,
    REPORT_FILE,
    VERSION,
    DataInfo,
    ModelInfo,
    Protocol,
    Report,
    Reproduction,
)
from adaptok.evaluation.summary import Summary
from adaptok.metrics.similarity import ssim_scales
from adaptok.utils.files import replacing
from adaptok.utils.system import command_line, versions

MARKDOWN_FILE, HTML_FILE = "report.md", "report.html"


def build(
    results: PartialResults,
    summary: Summary,
    skipped: dict[str, str],
    machine: dict[str, Any],
    hashes: dict[str, str] | None = None,
) -> Report:
    """Build the report of a model or of two folders.

    Args:
        results: partial results.
        summary: their totals.
        skipped: reason for each metric that could not be measured.
        machine: description of the machine.
        hashes: SHA-256 of the weight files of metrics.
    """
    plan, model = results.plan, None
    if plan.model is not None:
        model = ModelInfo(name=plan.model, weights=plan.model_hash, scorer=plan.scorer_hash, dtype=plan.dtype)
    return Report(
        format=FORMAT,
        version=VERSION,
        kind="pairs" if plan.kind == "pairs" else "tokenizer",
        protocol=Protocol(
            name=plan.protocol,
            description=_description(plan),
            frames=plan.frames,
            size=plan.size,
            scope=plan.scope,
            effort=plan.effort,
            batch_size=plan.batch_size,
            ms_ssim_scales=None if plan.size is None else ssim_scales(plan.size),
            patch_size=plan.patch_size,
            autocast=plan.autocast,
            seed=0,
        ),
        model=model,
        data=DataInfo(
            videos=summary.videos,
            clips=summary.clips,
            seconds=summary.video_seconds,
            sha256=results.data_hash(),
            originals_sha256=results.data_hash(originals=True),
            skipped=summary.skipped,
            warnings=summary.warnings,
        ),
        metrics=[*summary.metrics, *(["fvd"] if summary.statistics else [])],
        skipped_metrics=skipped,
        undefined=summary.undefined,
        detector=plan.detector,
        weights=weights_of(plan) | (hashes or {}),
        results=summary.results(),
        examples=summary.examples,
        speed=summary.speed(),
        reproduction=Reproduction(versions=versions(), machine=machine, command=command_line()),
    )


def weights_of(plan: Plan) -> dict[str, str]:
    """SHA-256 of the weights of the networks in a plan, by their role."""
    hashes = {
        "tokenizer": plan.model_hash,
        "scorer": plan.scorer_hash,
        "generator": plan.generator_hash,
        "fvd": plan.detector,
    }
    return {role: sha256 for role, sha256 in hashes.items() if sha256 is not None}


def _description(plan: Plan) -> str:
    if not plan.partial:
        return PROTOCOLS[plan.protocol]
    square = "" if plan.size is None else "; the largest square in the middle, resized (antialiased bilinear)"
    return f"all clips of every video, the last of which may be shorter{square}"


def write(
    folder: Path, report: Report, results: PartialResults, summary: Summary, examples: dict[str, list[Example]]
) -> None:
    """Write all files of a report atomically, `report.json` last."""
    write_table(folder / TABLE_FILE, results, summary)
    names = ["reference", *(v.name if v.budget is None else f"{v.name}-{v.budget:g}" for v in summary.variants)]
    for name, statistics in zip(names, summary.statistics, strict=False):  # none without a detector
        statistics.save(statistics_path(folder, name))
    write_pages(folder, report, examples)


def write_pages(folder: Path, report: Report, examples: dict[str, list[Example]]) -> None:
    """Write the pages and `report.json`."""
    pages = {
        MARKDOWN_FILE: markdown_page(report),
        HTML_FILE: html_page(report, examples),
        REPORT_FILE: json.dumps(report.document(), indent=1) + "\n",
    }
    for name, text in pages.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def statistics_path(folder: Path, name: str) -> Path:
    """File of the feature statistics of one side or variant."""
    return folder / f"statistics-{name}.safetensors"
