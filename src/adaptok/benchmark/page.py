"""docs/performance.md: a section for each kind of benchmark, which running it again replaces."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptok.benchmark.timing import Measurement
from adaptok.utils.files import replacing

HEAD = """# Performance

Measured by `adaptok benchmark`; a command with `--page docs/performance.md` replaces its section. Times are medians of
repeats after one that does not count. Work is the least that block-causal attention needs, matrix products alone; the
share is of the fastest large matrix product of the same machine at the same precision, timed between the repeats.
Memory is the largest of the process; each precision, and each preset, has its own. Where the time on processors is much
less than threads times the median, others used the machine too, and times and shares say little.
"""
_MARK = "<!-- benchmark: {} -->"


def update_page(
    path: Path, kind: str, command: str, machine: dict[str, Any], versions: dict[str, str], found: Sequence[Measurement]
) -> None:
    """Write the section of this kind; the others stay as they are."""
    text = path.read_text(encoding="utf-8") if path.exists() else HEAD
    mark = _MARK.format(kind)
    section = f"{mark}\n{_section(kind, command, machine, versions, found)}"
    pattern = re.compile(re.escape(mark) + r".*?(?=\n<!-- benchmark: |\Z)", re.DOTALL)
    there = pattern.search(text) is not None
    text = pattern.sub(lambda _: section, text) if there else text.rstrip("\n") + "\n\n" + section
    with replacing(path) as temporary:
        temporary.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def _section(
    kind: str, command: str, machine: dict[str, Any], versions: dict[str, str], found: Sequence[Measurement]
) -> str:
    lines = [f"## {kind.capitalize()}", "", f"`{command}`", ""]
    lines.append(
        f"{machine['processor']}, {machine['device']}, {machine['threads']} thread(s); torch {versions['torch']},"
        f" adaptok {versions['adaptok']}."
    )
    rows = table(found)
    head = [_row(rows[0]), _row(["---", *["---:"] * (len(rows[0]) - 1)])]
    return "\n".join([*lines, "", *head, *map(_row, rows[1:])]) + "\n"


def table(found: Sequence[Measurement]) -> list[list[str]]:
    """Head and rows; columns that nothing fills are left out."""
    settings = list(dict.fromkeys(name for m in found for name in m.settings))
    more = list(dict.fromkeys(name for m in found for name in m.more))
    head = ["work", *settings, "median", "least", "processor", "repeats"]
    head += ["GFLOP", "peak GFLOP/s", "share", "memory GB", *more]
    rows = [[*_cells(m, settings), *(f"{m.more[name]:.4g}" if name in m.more else "" for name in more)] for m in found]
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    return [[row[i] for i in kept] for row in [[name.replace("_", " ") for name in head], *rows]]


def _cells(m: Measurement, settings: Sequence[str]) -> list[str]:
    return [
        m.case,
        *(str(m.settings.get(name, "")) for name in settings),
        seconds(m.median_s),
        seconds(m.least_s),
        seconds(m.processor_s),
        str(m.repeats),
        "" if m.work_gflop is None else f"{m.work_gflop:.{0 if m.work_gflop >= 100 else 1}f}",
        "" if m.peak_gflops is None else f"{m.peak_gflops:.0f}",
        "" if m.share is None else f"{m.share:.1%}",
        f"{m.memory_gb:.2f}",
    ]


def seconds(value: float) -> str:
    """As people read it."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.2f} ms"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
