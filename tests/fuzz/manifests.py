"""Lists of files: CSV, text and Parquet indices."""

from __future__ import annotations

import io
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from adaptok.data.manifests import Entry, read_manifest
from tests.fuzz.commands import command
from tests.fuzz.harness import Failure, Target, attempt
from tests.fuzz.mutations import damaged
from tests.fuzz.originals import FORMATS

LISTS = ("list.csv", "list-official.csv", "list.txt", "index.parquet")
NAMES = (
    *(
        "clips/orbit/00000.mp4",
        "a b.mp4",
        "ä.mp4",
        'quo"te.mp4',
        "comma,.mp4",
        "new\nline.mp4",
        "line\u2028.mp4",
        "",
        " ",
    ),
    *("x" * 300 + ".mp4", "nul\0.mp4", "/dev/stdin.mp4", "http://127.0.0.1:9/x.mp4", "../x.mp4", "tab\t.mp4", "'.mp4"),
    *("\ufeffbom.mp4", "cr\r.mp4", "-dash.mp4", "#comment.mp4", "path", "10:20.mp4", "x" * 140_000),
)
LABELS = ("a", "", "3", "-1", "two words", 'q"q', "new\nline", "1.5", "x" * 200)


class Manifests(Target):
    """A list is refused, or it names files; a list that was written by the csv module is read as it was written."""

    name = "manifests"

    def prepare(self, seeds: Path) -> None:
        for name in LISTS:
            shutil.copy(FORMATS / name, seeds)
        shutil.copytree(FORMATS / "clips", seeds / "clips")

    def open(self, seeds: Path) -> None:
        self.seeds = seeds
        self.files = {name: (seeds / name).read_bytes() for name in LISTS}

    def run(self, rng: random.Random, folder: Path) -> None:
        written: list[tuple[str, str | None]] | None = None
        way = rng.random()
        if way < 0.5:
            name = rng.choice(LISTS)
            (folder / name).write_bytes(damaged(rng, self.files[name], list(self.files.values())))
        elif way < 0.8:
            name = rng.choice(("list.csv", "list.txt"))
            written = write_list(rng, folder / name)
        else:
            name = "index.parquet"
            write_changed_index(rng, self.seeds / name, folder / name)
        path = folder / name
        if rng.random() < 0.1:
            command("data", "index", path, "--out", folder / "out.parquet")
        entries = attempt((ValueError, FileNotFoundError), lambda: read_manifest(path, self.seeds))
        for entry in entries:
            check(entry)
        if written is not None and name == "list.csv":
            read = [(str(entry.path), entry.label) for entry in entries]
            expected = [(str(self.seeds / name.strip()), label and (label.strip() or None)) for name, label in written]
            if read != expected:
                raise Failure(f"{written!r} was read as {read!r}")


def check(entry: Entry) -> None:
    """Fail unless an entry is of the documented types and values."""
    if not isinstance(entry.path, Path) or any(letter in str(entry.path) for letter in "\0\n"):
        raise Failure(f"path {entry.path!r}")
    if entry.label is not None and (not isinstance(entry.label, str) or not entry.label):
        raise Failure(f"label {entry.label!r}")
    for value in (entry.frames, entry.width, entry.height):
        if value is not None and not (isinstance(value, int) and value >= 0):
            raise Failure(f"frames, width or height {value!r}")


def write_list(rng: random.Random, path: Path) -> list[tuple[str, str | None]]:
    """Write a list of hostile names, and return them with their labels."""
    count = rng.randint(1, 4)
    rows = [(rng.choice(NAMES), rng.choice(LABELS) if rng.random() < 0.7 else None) for _ in range(count)]
    text = io.StringIO()
    if path.suffix == ".csv":
        special = rng.choice((',"\r\n', ""))  # quote what must be quoted, or all
        fields = [("path", "label"), *((name, label or "") for name, label in rows)]
        text.write("".join(",".join(csv_field(field, special) for field in row) + "\r\n" for row in fields))
    else:
        text.write("".join(f"{name}{'' if label is None else ' ' + label}\n" for name, label in rows))
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    return [(name, label or None) for name, label in rows]


def csv_field(text: str, special: str) -> str:
    """Quote a field, if it has one of the special characters or there are none. csv.writer refuses NUL before 3.11."""
    plain = special and not any(letter in special for letter in text)
    return text if plain else '"' + text.replace('"', '""') + '"'


def write_changed_index(rng: random.Random, source: Path, path: Path) -> None:
    """Write an index with a value or a column of another kind."""
    table = pq.read_table(source)
    name = rng.choice(table.column_names)
    value = rng.choice((None, 0, -1, 2**40, 1e300, float("nan"), "", "x\ny", "\0", [], [1], {"a": 1}, b"\xff", True))
    values = table[name].to_pylist()
    values[rng.randrange(len(values))] = value
    at = table.column_names.index(name)
    try:
        column = pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        column = pa.array([value] * len(values))
    table = table.remove_column(at) if rng.random() < 0.1 else table.set_column(at, name, column)
    pq.write_table(table, path)
