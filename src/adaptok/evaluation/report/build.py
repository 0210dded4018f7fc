"""The report of an evaluation: `report.json`, `metrics.parquet`, `report.md`, `report.html`, and feature statistics."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptok.evaluation.partial_results import Parts, Plan
from adaptok.evaluation.protocols import PROTOCOLS
from adaptok.evaluation.report.page import html_page, markdown_page
from adaptok.evaluation.report.tables import TABLE_FILE, write_table
from adaptok.evaluation.summary import Clip, Summary, Tokens, Way
from adaptok.metrics.similarity import ssim_scales
from adaptok.utils.files import replacing
from adaptok.utils.system import versions

FORMAT, VERSION = "adaptok-report", 1
REPORT_FILE, MARKDOWN_FILE, HTML_FILE = "report.json", "report.md", "report.html"
STATISTICS = "statistics-{}.safetensors"

Frame = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """A clip to look at: some frames `[H, W, 3]` of the original over the same of every reconstruction."""

    clip: Clip
    rows: list[tuple[str, list[Frame]]]


def collect(parts: Parts, ways: Sequence[Way], tokens: Tokens | None) -> Summary:
    """Everything added up in the order of the plan.

    Raises:
        ValueError: no clip could be measured.
    """
    plan = parts.plan
    provenance = {"detector": plan.detector, "protocol": plan.protocol, "frames": plan.frames, "size": plan.size}
    metrics = [name for name in plan.metrics if name != "fvd"]
    summary = Summary(ways, metrics, tokens, provenance)
    for part in parts:
        summary.add(part, plan.frames)
    if not summary.clips:
        first = next(iter(summary.skipped.items()), None)
        why = "" if first is None else f"; the first of {len(summary.skipped)}: {first[0]}: {first[1]}"
        raise ValueError(f"no clip could be measured{why}")
    return summary


def build(parts: Parts, summary: Summary, left_out: dict[str, str], machine: dict[str, Any]) -> dict[str, Any]:
    """The document of `report.json`."""
    plan = parts.plan
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "kind": plan.kind,
        "protocol": {
            "name": plan.protocol,
            "takes": _takes(plan),
            "frames": plan.frames,
            "size": plan.size,
            "scope": plan.scope,
            "batch_size": plan.batch_size,
            "ms_ssim_scales": None if plan.size is None else ssim_scales(plan.size),
            "patch_size": plan.patch_size,
        },
        "model": None
        if plan.model is None
        else {"name": plan.model, "weights": plan.model_hash, "scorer": plan.scorer_hash, "dtype": plan.dtype},
        "data": {
            "videos": summary.videos,
            "clips": summary.clips,
            "seconds": summary.video_seconds,
            "sha256": parts.data_hash(),
            "originals_sha256": parts.data_hash(originals=True),
            "skipped": summary.skipped,
            "warnings": summary.warnings,
        },
        "metrics": [*summary.metrics, *(["fvd"] if summary.original is not None else [])],
        "left_out": left_out,
        "undefined": summary.undefined,
        "detector": plan.detector,
        "results": summary.results(),
        "shown": {name: [clip._asdict() for clip in getattr(summary, name)] for name in ("best", "worst")},
        "speed": speed(summary),
        "repeat": {"versions": versions(), "machine": machine, "command": command_line()},
    }
    return document


def _takes(plan: Plan) -> str:
    """Which clips, in words."""
    if not plan.partial:
        return PROTOCOLS[plan.protocol]
    square = "" if plan.size is None else "; the largest square in the middle, resized (antialiased bilinear)"
    return f"all clips of every video, the last of which may be shorter{square}"


def speed(summary: Summary) -> dict[str, Any]:
    """Clips per second of each piece of work, and the largest memory of a process."""
    clips, ways = summary.clips, len(summary.ways)
    rates = {
        f"{name}_clips_per_second": clips * (1 if name == "encode" else ways) / spent
        for name, spent in summary.seconds.items()
        if spent > 0
    }
    return {"seconds": dict(summary.seconds), **rates, "memory_gb": summary.memory / 1e9}


def write(
    folder: Path, document: dict[str, Any], parts: Parts, summary: Summary, shown: dict[str, list[Shown]]
) -> None:
    """Write everything; each file is written beside its place and renamed, `report.json` last."""
    write_table(folder / TABLE_FILE, parts, summary.ways, summary.metrics, summary.tokens)
    if summary.original is not None:
        summary.original.save(folder / STATISTICS.format("reference"))
        for way, sums in zip(summary.ways, summary.sums, strict=True):
            if sums.statistics is not None:
                name = way.name if way.budget is None else f"{way.name}-{way.budget:g}"
                sums.statistics.save(folder / STATISTICS.format(name))
    write_pages(folder, document, shown)


def write_pages(folder: Path, document: dict[str, Any], shown: dict[str, list[Shown]]) -> None:
    """Write the pages, and the document that they are made from."""
    _write_text(folder / MARKDOWN_FILE, markdown_page(document))
    _write_text(folder / HTML_FILE, html_page(document, {k: [_plain(s) for s in v] for k, v in shown.items()}))
    _write_text(folder / REPORT_FILE, json.dumps(document, indent=1) + "\n")


def _plain(shown: Shown) -> tuple[str, list[tuple[str, list[Frame]]]]:
    clip = shown.clip
    return f"{clip.video}, clip {clip.clip}: {clip.psnr:.2f} dB", shown.rows


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_report(folder: Path) -> dict[str, Any]:
    """The document that `write` wrote.

    Raises:
        FileNotFoundError: the folder has no report.
        ValueError: it is none of ours.
    """
    path = folder / REPORT_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; 'adaptok evaluate … --out {folder}' writes it")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError:
        document = None
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != VERSION:
        raise ValueError(f"{path}: not a report of this program (version {VERSION} of its format)")
    return document


def command_line() -> str:
    """What this program was called with."""
    return " ".join(["adaptok", *map(shlex.quote, sys.argv[1:])])
