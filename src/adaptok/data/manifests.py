"""What a collection lists: folders, the lists that data sets are published with, and Parquet indices."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
LIST_SUFFIXES = (".csv", ".txt", ".parquet")

Folders = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Entry:
    """A file of a collection.

    Attributes:
        path: of the file.
        label: its class, a number or a name, where one is known.
        frames, rate, width, height: what an index says of it; None where nobody has looked yet. A photograph has one
            frame, and no rate.
        error: why it cannot be read.
    """

    path: Path
    label: str | None = None
    frames: int | None = None
    rate: Fraction | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None


def find_entries(sources: Folders, suffixes: frozenset[str], root: str | Path | None = None) -> Iterator[Entry]:
    """Files with one of these suffixes: in folders, searched recursively and in order, or in lists.

    A folder within a folder is the label of its files, as UCF-101 and Kinetics unpack.

    Args:
        root: where relative paths in lists start; the folder of the list if None.

    Raises:
        FileNotFoundError: a folder or list does not exist.
        ValueError: a file is no list.
    """
    for source in [sources] if isinstance(sources, str | Path) else sources:
        source = Path(source)
        if source.is_dir():
            paths = (path for path in source.rglob("*") if path.suffix.lower() in suffixes)
            for path in sorted(path for path in paths if path.is_file()):
                yield Entry(path, path.parent.name if path.parent != source else None)
        elif not source.exists():
            raise FileNotFoundError(f"{source}: no such folder or list of files")
        else:
            yield from (entry for entry in read_manifest(source, root) if entry.path.suffix.lower() in suffixes)


def read_manifest(path: str | Path, root: str | Path | None = None) -> list[Entry]:
    """Read a list of files.

    CSV: `id,path,action,label` as the official lists have it, or `path[,label]`, with a header or without. Text:
    `path [label]`, as UCF-101's lists. Parquet: an index of `adaptok data index`.

    Args:
        root: where relative paths start; the folder of the list if None.

    Raises:
        ValueError: it is none of these, there is no column of paths, or a line has none.
    """
    path = Path(path)
    start = path.parent if root is None else Path(root)
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise ValueError(f"{path}: expected a folder, or a list of files ({', '.join(LIST_SUFFIXES)})")
    if path.suffix.lower() == ".parquet":
        return _read_index(path, start)
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".txt":
        rows = [_split_label(line) for line in text.splitlines() if line.strip()]
    else:
        rows = [row for row in csv.reader(text.splitlines()) if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{path}: an empty list, expected lines of path[,label] or id,path,action,label")
    header = [cell.strip().lower() for cell in rows[0]]
    if "path" in header:
        rows = rows[1:]
    else:
        header = ["id", "path", "action", "label"] if len(header) == 4 else ["path", "label"]
    place = header.index("path")
    labels = header.index("label") if "label" in header else None
    entries = []
    for number, row in enumerate(rows, 1):
        if len(row) <= place or not row[place].strip():
            raise ValueError(f"{path}: entry {number} {row} has no path, expected it in column {place + 1}")
        label = row[labels].strip() if labels is not None and len(row) > labels else None
        entries.append(Entry(start / row[place].strip(), label or None))
    return entries


def _split_label(line: str) -> list[str]:
    """`path label`, where the label is a number; a path may have spaces."""
    path, _, label = line.strip().rpartition(" ")
    return [path.strip(), label] if path and label.isdigit() else [line.strip()]


def write_index(path: Path, entries: Sequence[Entry]) -> None:
    """Write a Parquet file of entries; paths below its folder are stored relative to it.

    Columns: path, label, frames, rate (frames per second), width, height, readable, error.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from adaptok.utils.files import replacing

    folder = path.parent.resolve()
    rows = [
        {
            "path": _relative(entry.path.resolve(), folder),
            "label": entry.label,
            "frames": entry.frames,
            "rate": None if entry.rate is None else float(entry.rate),
            "width": entry.width,
            "height": entry.height,
            "readable": entry.error is None,
            "error": entry.error,
        }
        for entry in entries
    ]
    types = {"path": pa.string(), "label": pa.string(), "frames": pa.int64(), "rate": pa.float64()}
    types |= {"width": pa.int32(), "height": pa.int32(), "readable": pa.bool_(), "error": pa.string()}
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(types.items()))), temporary)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _read_index(path: Path, start: Path) -> list[Entry]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise ImportError(f"{path}: an index needs pyarrow; install it with: pip install 'adaptok[train]'") from None
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file ({error})") from None
    if rows and "path" not in rows[0]:
        raise ValueError(f"{path}: columns {', '.join(rows[0])}, expected a column path; see 'adaptok data index'")
    return [_index_entry(start, row) for row in rows]


def _index_entry(start: Path, row: dict[str, Any]) -> Entry:
    label = row.get("label")
    rate = float(row.get("rate") or 0.0)
    return Entry(
        start / row["path"],
        None if label is None else str(label),
        row.get("frames"),
        Fraction(rate).limit_denominator(100_000) if math.isfinite(rate) and rate > 0 else None,
        row.get("width"),
        row.get("height"),
        (row.get("error") or "cannot be read") if row.get("readable") is False else None,
    )
