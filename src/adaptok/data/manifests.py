"""Files of a collection, from folders, from lists in the formats that datasets are published with, or from an index."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from adaptok.utils.extras import require
from adaptok.utils.files import replacing
from adaptok.video.folders import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from adaptok.video.folders import VIDEO_SUFFIXES as VIDEO_SUFFIXES
from adaptok.video.folders import is_frame_folder, list_files

LIST_SUFFIXES = (".csv", ".txt", ".parquet")
CLASSES_FILE = "classInd.txt"
"""Names of the classes of UCF-101, beside its lists."""

Paths = str | Path | Sequence[str | Path]
"""One folder or list, or several."""


@dataclass(frozen=True)
class Entry:
    """A file of a collection.

    Attributes:
        label: Class of the file, a number or a name, or None if unknown.
        frames, fps, width, height: Statistics from an index, or None if the file was not opened yet. A photograph has
            one frame and no frame rate.
        error: Reason why the file cannot be read.
    """

    path: Path
    label: str | None = None
    frames: int | None = None
    fps: Fraction | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None


def find_entries(sources: Paths, suffixes: frozenset[str], root: str | Path | None = None) -> Iterator[Entry]:
    """Yield the files with one of these suffixes. Folders are searched recursively and in sorted order.

    In a folder, the name of a file's parent folder is its label, as in the archives of UCF-101 and Kinetics. Files
    directly in the folder have no label.

    Args:
        sources: Folders or lists.
        root: Folder of the relative paths in lists. None is the folder of the list.

    Raises:
        FileNotFoundError: A folder or list does not exist.
        ValueError: A file is not a list.
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


def find_collection(source: str | Path, root: str | Path | None = None) -> list[Entry]:
    """List the videos of a folder or list: video files, or folders of frames if a folder holds no video files.

    The name of a frame folder's parent is its label, as for files. Arguments and errors are those of `find_entries`.

    Raises:
        ValueError: Images lie directly in a folder and in its sub-folders.
    """
    entries = list(find_entries(source, VIDEO_SUFFIXES, root))
    folder = Path(source)
    if entries or not folder.is_dir():
        return entries
    if is_frame_folder(folder):
        return [Entry(folder)]
    paths = sorted({image.parent for image in list_files(folder, IMAGE_SUFFIXES)})
    return [Entry(path, path.parent.name if path.parent != folder else None) for path in paths]


def no_readable_message(kind: str, sources: Paths, broken: Mapping[str, str]) -> str:
    """Format the error message for a collection without a readable file of this kind."""
    places = sources if isinstance(sources, str | Path) else ", ".join(map(str, sources))
    example = "".join(f"; {path}: {reason}" for path, reason in list(broken.items())[:1])
    return f"no readable {kind} in {places} ({len(broken)} broken{example})"


def read_manifest(path: str | Path, root: str | Path | None = None) -> list[Entry]:
    """Read a list of files.

    CSV files have the columns `id,path,action,label`, as in the official lists, or `path[,label]`, with or without a
    header. The action is the name of the class, and replaces the label if it is not empty. Lines of text files are
    `path [label]`, as in the lists of UCF-101; if the dataset's file `classInd.txt`, with lines of `number name`, lies
    in the folder of the list or of the videos, numbers become names. Parquet files are indices written by `adaptok data
    index`.

    Args:
        root: Folder of the relative paths. None is the folder of the list.

    Raises:
        ValueError: The format is unknown, a path is missing, or the number of a class has no name.
    """
    path = Path(path)
    folder = path.parent if root is None else Path(root)
    suffix = path.suffix.lower()
    if suffix not in LIST_SUFFIXES:
        raise ValueError(f"{path}: expected a folder, or a list of files ({', '.join(LIST_SUFFIXES)})")
    if suffix == ".parquet":
        return _read_index(path, folder)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    rows = [_split_label(line) for line in lines] if suffix == ".txt" else csv.reader(lines)
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        raise ValueError(f"{path}: the list is empty, expected lines of path[,label] or id,path,action,label")
    entries = _parse_rows(rows, path, folder)
    names = next((place / CLASSES_FILE for place in (path.parent, folder) if (place / CLASSES_FILE).is_file()), None)
    return entries if suffix != ".txt" or names is None else list(_name_classes(entries, names))


def _parse_rows(rows: list[list[str]], path: Path, folder: Path) -> list[Entry]:
    header = [cell.strip().lower() for cell in rows[0]]
    if "path" in header:
        rows = rows[1:]
    else:
        header = ["id", "path", "action", "label"] if len(header) == 4 else ["path", "label"]
    entries, column = [], header.index("path") + 1
    for number, row in enumerate(rows, 1):
        cells = dict(zip(header, map(str.strip, row), strict=False))
        if not cells.get("path"):
            raise ValueError(f"{path}: entry {number} {row} has no path, expected it in column {column}")
        entries.append(Entry(folder / cells["path"], cells.get("action") or cells.get("label") or None))
    return entries


def _name_classes(entries: Sequence[Entry], file: Path) -> Iterator[Entry]:
    """Replace numbers of classes by the names in a file of lines `number name`."""
    lines = (line.split(maxsplit=1) for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())
    names = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    for entry in entries:
        if entry.label is not None and entry.label not in names:
            raise ValueError(
                f"{entry.path}: class {entry.label} is not in {file}, which has {len(names)} classes; remove that file,"
                " or correct the list"
            )
        yield entry if entry.label is None else replace(entry, label=names[entry.label])


def _split_label(line: str) -> list[str]:
    """Split `path label`, where the label is a number. Paths may contain spaces."""
    path, _, label = line.strip().rpartition(" ")
    return [path.strip(), label] if path and label.isdigit() else [line.strip()]


def write_index(path: Path, entries: Sequence[Entry]) -> None:
    """Write a Parquet index of entries. Paths below its folder are stored relative to it.

    The columns are path, label, frames, rate (frames per second), width, height, readable and error.
    """
    require("pyarrow", extra="train", purpose="an index")
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = path.parent.resolve()
    rows = [
        {
            **vars(entry),
            "path": _relative(entry.path.resolve(), folder),
            "rate": None if entry.fps is None else float(entry.fps),
            "readable": entry.error is None,
        }
        for entry in entries
    ]
    types = {"path": pa.string(), "label": pa.string(), "frames": pa.int64(), "rate": pa.float64()}
    types |= {"width": pa.int32(), "height": pa.int32(), "readable": pa.bool_(), "error": pa.string()}
    with replacing(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(list(types.items()))), temporary)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _read_index(path: Path, folder: Path) -> list[Entry]:
    require("pyarrow", extra="train", purpose=f"{path}: an index")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: not a Parquet file ({error})") from None
    if rows and "path" not in rows[0]:
        raise ValueError(f"{path}: columns {', '.join(rows[0])}, expected a column path; see 'adaptok data index'")
    return [_index_entry(folder, row) for row in rows]


def _index_entry(folder: Path, row: dict[str, Any]) -> Entry:
    label = row.get("label")
    fps = float(row.get("rate") or 0.0)
    return Entry(
        folder / row["path"],
        None if label is None else str(label),
        row.get("frames"),
        Fraction(fps).limit_denominator(100_000) if math.isfinite(fps) and fps > 0 else None,
        row.get("width"),
        row.get("height"),
        (row.get("error") or "cannot be read") if row.get("readable") is False else None,
    )
