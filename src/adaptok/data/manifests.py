"""Files of a collection, from folders, from lists in the formats that datasets are published with, or from an index."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

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


@dataclass(frozen=True, slots=True)
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
    """Yield the files with one of these suffixes. Folders are searched recursively and in sorted order, without hidden
    files and folders: names that start with a dot are those of files that a killed process left incomplete.

    In a folder, the name of a file's parent folder is its label, as in the archives of UCF-101 and Kinetics. Files
    directly in the folder have no label.

    Args:
        sources: Folders or lists.
        root: Folder of the relative paths in lists. None is the folder of the list.

    Raises:
        FileNotFoundError: A folder or list does not exist, or none of the files in a list.
        ValueError: A file is not a list.
    """
    for source in [sources] if isinstance(sources, str | Path) else sources:
        source = Path(source)
        if source.is_dir():
            for path in list_files(source, suffixes):
                yield Entry(path, path.parent.name if path.parent != source else None)
        elif not source.exists():
            raise FileNotFoundError(f"{source}: no such folder or list of files")
        else:
            yield from _find_listed(source, suffixes, root)


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
    header. The action is the name of the class, and replaces the label if it is not empty. Every entry is one line, so
    names in quotes must not contain line breaks. Lines of text files are `path [label]`, as in the lists of UCF-101; if
    the dataset's file `classInd.txt`, with lines of `number name`, lies in the folder of the list or of the videos,
    numbers become names. Parquet files are indices written by `adaptok data index`.

    Args:
        root: Folder of the relative paths. None is the folder of the list.

    Raises:
        ValueError: The format is unknown, an entry is damaged or has no path, or the number of a class has no name.
    """
    path = Path(path)
    folder = path.parent if root is None else Path(root)
    if _check_list(path) == ".parquet":
        return _read_index(path, folder)
    return [Entry(folder / name, label) for name, label in _read_list(path, folder)]


class _Listed(NamedTuple):
    """Path and label in an entry of a list."""

    name: str
    label: str | None


def _find_listed(path: Path, suffixes: frozenset[str], root: str | Path | None) -> Iterator[Entry]:
    """Yield the entries of a list or an index with one of these suffixes.

    Raises:
        FileNotFoundError: None of the files in a list exists.
    """
    if path.suffix.lower() == ".parquet":
        yield from (entry for entry in read_manifest(path, root) if entry.path.suffix.lower() in suffixes)
        return
    folder = path.parent if root is None else Path(root)
    endings = tuple(suffixes)
    listed = [row for row in _read_list(path, folder) if row.name.lower().endswith(endings)]
    if listed and not _any_exists(folder, listed):
        raise FileNotFoundError(
            f"{path}: none of its {len(listed)} files exists, such as {folder / listed[0].name}; correct the list, or"
            " name the folder that its paths are relative to as the root"
        )
    yield from (Entry(folder / name, label) for name, label in listed)


def _any_exists(folder: Path, listed: Sequence[_Listed]) -> bool:
    """Return whether one of the files exists. A million missing ones take seconds, as paths of files in missing folders
    are not looked up."""
    exists: dict[str, bool] = {}
    for row in listed:
        parent = os.path.dirname(row.name)
        if parent not in exists:
            exists[parent] = os.path.isdir(os.path.join(folder, parent))
        if exists[parent] and os.path.exists(os.path.join(folder, row.name)):
            return True
    return False


def _read_list(path: Path, folder: Path) -> list[_Listed]:
    """Read a list in CSV or text."""
    suffix = _check_list(path)
    lines = _read_text(path).split("\n")  # other separators of str.splitlines may be part of a name
    split = _split_label if suffix == ".txt" else _split_cells
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip(" \t\r,"))
    listed = list(_parse_rows(((number, split(line, path, number)) for number, line in numbered), path))
    if not listed:
        raise ValueError(f"{path}: the list is empty, expected lines of path[,label] or id,path,action,label")
    names = next((place / CLASSES_FILE for place in (path.parent, folder) if (place / CLASSES_FILE).is_file()), None)
    return listed if suffix != ".txt" or names is None else list(_name_classes(listed, names))


def _check_list(path: Path) -> str:
    """Return the suffix of a list. Opening a pipe would wait for a writer."""
    suffix = path.suffix.lower()
    if suffix not in LIST_SUFFIXES or (path.exists() and not path.is_file()):
        raise ValueError(f"{path}: expected a folder, or a list of files ({', '.join(LIST_SUFFIXES)})")
    return suffix


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8, expected a text file in UTF-8") from None
    if "\0" in text:
        raise ValueError(f"{path}: holds a NUL character, expected a text file in UTF-8")
    return text


def _parse_rows(rows: Iterator[tuple[int, list[str]]], path: Path) -> Iterator[_Listed]:
    first = next(rows, None)
    if first is None:
        return
    header = [cell.strip().lower() for cell in first[1]]
    if "path" not in header:
        header = ["id", "path", "action", "label"] if len(header) == 4 else ["path", "label"]
        rows = chain([first], rows)
    place = header.index("path")
    labels = [header.index(name) for name in ("action", "label") if name in header]
    for number, cells in rows:
        name = cells[place].strip() if place < len(cells) else ""
        if not name:
            raise ValueError(f"{path}: line {number} {cells} has no path, expected it in column {place + 1}")
        label = ""
        for index in labels:
            label = label or (cells[index].strip() if index < len(cells) else "")
        yield _Listed(name, label or None)


def _name_classes(rows: Sequence[_Listed], file: Path) -> Iterator[_Listed]:
    """Replace numbers of classes by the names in a file of lines `number name`."""
    lines = (line.split(maxsplit=1) for line in _read_text(file).splitlines() if line.strip())
    names = {line[0]: line[1].strip() for line in lines if len(line) == 2}
    for name, label in rows:
        if label is not None and label not in names:
            raise ValueError(
                f"{name}: class {label} is not in {file}, which has {len(names)} classes; remove that file, or correct"
                " the list"
            )
        yield _Listed(name, None if label is None else names[label])


def _split_label(line: str, path: Path, number: int) -> list[str]:
    """Split `path label`, where the label is a number. Paths may contain spaces."""
    name, _, label = line.strip().rpartition(" ")
    return [name, label] if name and label.isdecimal() else [line]


def _split_cells(line: str, path: Path, number: int) -> list[str]:
    """Split a line of a CSV file. Quotes must be closed in the same line, so that no line is lost in another one."""
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        reason = "a quote is not closed" if "unexpected end" in str(error) else str(error)
        raise ValueError(
            f"{path}: line {number} {line[:60]!r}: {reason}, expected quotes around whole cells, and each entry in one"
            " line"
        ) from None


def write_index(path: Path, entries: Sequence[Entry]) -> None:
    """Write a Parquet index of entries. Paths below its folder are stored relative to it.

    The columns are path, label, frames, rate (frames per second), width, height, readable and error.
    """
    require("pyarrow", extra="train", purpose="an index")
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "path": relative_names([entry.path for entry in entries], path.parent.resolve()),
        "label": [entry.label for entry in entries],
        "frames": [entry.frames for entry in entries],
        "rate": [None if entry.fps is None else float(entry.fps) for entry in entries],
        "width": [entry.width for entry in entries],
        "height": [entry.height for entry in entries],
        "readable": [entry.error is None for entry in entries],
        "error": [entry.error for entry in entries],
    }
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns, schema=_index_schema()), temporary)


def _index_schema() -> Any:
    import pyarrow as pa

    types = {"path": pa.string(), "label": pa.string(), "frames": pa.int64(), "rate": pa.float64()}
    types |= {"width": pa.int32(), "height": pa.int32(), "readable": pa.bool_(), "error": pa.string()}
    return pa.schema(list(types.items()))


def relative_names(paths: Sequence[Path], root: Path) -> list[str]:
    """Return paths relative to a folder, or absolute ones of files outside of it. `root` has no symbolic links."""
    prefix, here, names = os.path.join(root, ""), os.getcwd(), []
    parents: dict[str, str] = {}
    for path in (os.path.join(here, path) for path in paths):
        parent, name = os.path.split(path)
        if parent not in parents:
            parents[parent] = parent if path.startswith(prefix) else os.path.realpath(parent)
        resolved = os.path.join(parents[parent], name)
        names.append(Path(resolved[len(prefix) :]).as_posix() if resolved.startswith(prefix) else path)
    return names


def _read_index(path: Path, folder: Path) -> list[Entry]:
    require("pyarrow", extra="train", purpose=f"{path}: an index")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        columns = {}
        for field in _index_schema():
            if field.name in table.column_names:
                columns[field.name] = table[field.name].cast(field.type).to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:  # KeyError if two columns have one name
        raise ValueError(f"{path}: not a Parquet file of an index ({' '.join(str(error).split())})") from None
    if "path" not in columns:
        raise ValueError(
            f"{path}: columns {', '.join(table.column_names)}, expected a column path; see 'adaptok data index'"
        )
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return [_index_entry(path, number, folder, row) for number, row in enumerate(rows)]


def _index_entry(path: Path, number: int, folder: Path, row: dict[str, Any]) -> Entry:
    if not row["path"]:
        raise ValueError(f"{path}: row {number} has no path; write the index again with 'adaptok data index'")
    sizes = {name: row.get(name) for name in ("frames", "width", "height")}
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise ValueError(f"{path}: row {number}: {name} {value}, expected at least 1, or null if unknown")
    fps = row.get("rate") or 0.0
    return Entry(
        folder / row["path"],
        row.get("label"),
        fps=Fraction(fps).limit_denominator(100_000) if math.isfinite(fps) and fps > 0 else None,
        error=(row.get("error") or "cannot be read") if row.get("readable") is False else None,
        **sizes,
    )
