"""A page of measurements in Markdown, with one section for each benchmark, which its next run replaces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptok.benchmark.timing import Measurement
from adaptok.utils.files import replacing
from adaptok.utils.system import command_line, versions
from adaptok.utils.templates import render


def update_page(path: Path, kind: str, machine: dict[str, Any], measurements: Sequence[Measurement]) -> None:
    """Write the section of a benchmark that this process ran; other sections of an existing page are kept.

    Args:
        path: Markdown page.
        kind: name of the benchmark.
        machine: description of the machine.
        measurements: rows of the section's table.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else render(__package__, "performance.md.j2")
    section = render(
        __package__,
        "section.md.j2",
        kind=kind,
        command=command_line(),
        machine=machine,
        versions=versions(),
        table=table(measurements),
    )
    present = re.compile(re.escape(section.splitlines()[0]) + r".*?(?=\n<!-- benchmark: |\Z)", re.DOTALL)
    text, replaced = present.subn(lambda _: section, text)
    if not replaced:
        text = text.rstrip("\n") + "\n\n" + section
    with replacing(path) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def table(measurements: Sequence[Measurement]) -> list[list[str]]:
    """Head and rows of a table; empty columns are left out."""
    settings = list(dict.fromkeys(name for m in measurements for name in m.settings))
    more = list(dict.fromkeys(name for m in measurements for name in m.more))
    head = ["work", *settings, "median", "minimum", "CPU time", "repeats"]
    head += ["GFLOP", "peak GFLOP/s", "fraction of peak", "memory GB", *more]
    rows = [
        [*_cells(m, settings), *(f"{m.more[name]:.4g}" if name in m.more else "" for name in more)]
        for m in measurements
    ]
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    return [[row[i] for i in kept] for row in [[name.replace("_", " ") for name in head], *rows]]


def _cells(m: Measurement, settings: Sequence[str]) -> list[str]:
    return [
        m.case,
        *(str(m.settings.get(name, "")) for name in settings),
        *(_seconds(value) for value in (m.median_s, m.min_s, m.cpu_s)),
        str(m.repeats),
        "" if m.work_gflop is None else f"{m.work_gflop:.{0 if m.work_gflop >= 100 else 1}f}",
        "" if m.peak_gflops is None else f"{m.peak_gflops:.0f}",
        "" if m.peak_fraction is None else f"{m.peak_fraction:.1%}",
        f"{m.memory_gb:.2f}",
    ]


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms"
