"""Lists of videos: the CSV manifests that data sets are published with, and Parquet indices."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One line of a manifest. `label` is a class number or name, where there is one."""

    path: Path
    label: str | None = None


def read_manifest(path: str | Path) -> list[Entry]:
    """Read a CSV file: `id,path,action,label` as the official lists have it, or `path[,label]`, with a header or
    without. Relative paths start at the manifest's folder.

    Raises:
        ValueError: there is no column of paths, or a line has none.
    """
    path = Path(path)
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{path}: an empty manifest, expected lines of path[,label] or id,path,action,label")
    header = [cell.strip().lower() for cell in rows[0]]
    if "path" in header:
        rows = rows[1:]
    else:
        header = ["id", "path", "action", "label"] if len(header) == 4 else ["path", "label"]
    place = header.index("path")
    labels = header.index("label") if "label" in header else None
    return list(_entries(path, rows, place, labels))


def _entries(path: Path, rows: list[list[str]], place: int, labels: int | None) -> Iterator[Entry]:
    for number, row in enumerate(rows, 1):
        if len(row) <= place or not row[place].strip():
            raise ValueError(f"{path}: entry {number} {row} has no path, expected it in column {place + 1}")
        label = row[labels].strip() if labels is not None and len(row) > labels else None
        yield Entry(path.parent / row[place].strip(), label or None)
