"""Token datasets: damaged shards, shards of changed contents, and plans."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from adaptok.data.token_datasets import TokenClip, TokenDataset, TokenDatasetInfo
from tests.fuzz.commands import command
from tests.fuzz.harness import Failure, Target, attempt
from tests.fuzz.mutations import damaged, document_changed, to_json
from tests.fuzz.originals import FORMATS
from tests.helpers.generators import write_tokens

ERRORS = (ValueError, FileNotFoundError)
MODEL = FORMATS / "model"
TEXTS = ("", "../x", "a\nb", "\x1b[31m", "x" * 5000)


class TokenDatasets(Target):
    """A damaged shard is refused; one of changed contents is refused, or its rows fit what it says of itself."""

    name = "token_datasets"

    def prepare(self, seeds: Path) -> None:
        for name in ("labels", "frames"):
            shutil.copytree(FORMATS / "token-datasets" / name, seeds / f"old-{name}")
        write_tokens(seeds / "new-rows", 40)
        tokenize(FORMATS / "clips", seeds / "new-plan")

    def open(self, seeds: Path) -> None:
        self.seeds = seeds
        self.folders = {folder.name: sorted(folder.iterdir()) for folder in sorted(seeds.iterdir())}
        self.expected = {name: contents(TokenDataset.open(seeds / name, scores=True)) for name in self.folders}

    def run(self, rng: random.Random, folder: Path) -> None:
        name = rng.choice(list(self.folders))
        target = folder / name
        shutil.copytree(self.seeds / name, target)
        if name == "new-plan" and rng.random() < 0.2:
            return self.resume(rng, target)
        shard = rng.choice(sorted(target.glob("*.parquet")))
        if name.startswith("new-"):
            shard.write_bytes(damaged(rng, shard.read_bytes()))
        else:
            write_changed(rng, shard)
        if rng.random() < 0.1:
            command("info", rng.choice((target, shard)))
        if rng.random() < 0.1:
            command("train", "generator", "--data.train", target, "--dry-run", "--output", folder / "run")
        if rng.random() < 0.1:
            command("decode", target, folder / "rows", "--model", MODEL, "--device", "cpu")
        dataset = attempt(ERRORS, lambda: TokenDataset.open(target, scores=True))
        rows = attempt(ERRORS, list, dataset)
        for clip in rows:
            check(clip, dataset.info)
        if name.startswith("new-") and contents(dataset) != self.expected[name]:
            raise Failure("a damaged shard was read with other contents")
        return None

    def resume(self, rng: random.Random, target: Path) -> None:
        """Damage the plan, a note or a shard, or remove some, and tokenize again."""
        path = rng.choice(sorted(target.iterdir()))
        for other in sorted(target.iterdir()):
            if other != path and rng.random() < 0.2 and other.name != "plan.json":
                other.unlink()
        if path.suffix == ".json" and rng.random() < 0.7:
            path.write_text(to_json(document_changed(rng, json.loads(path.read_text()))), errors="surrogatepass")
        else:
            path.write_bytes(damaged(rng, path.read_bytes()))
        try:
            tokenize(FORMATS / "clips", target)
        finally:
            if not (target / "plan.json").exists():
                raise Failure("the plan is gone")
        if contents(attempt(ERRORS, lambda: TokenDataset.open(target, scores=True))) != self.expected["new-plan"]:
            raise Failure(f"tokenizing into a folder with a damaged {path.name} gave another dataset")


def tokenize(source: Path, out: Path) -> None:
    """Tokenize the clips of the fixtures with the model of the fixtures."""
    flags = ("--model", MODEL, "--device", "cpu", "--budget", 18, "--stride", 4, "--shard-clips", 8)
    command("tokenize", source, "--output", out, *flags)


def contents(dataset: TokenDataset) -> list[Any]:
    """Everything that a dataset says."""
    rows = [[*(value.tolist() if isinstance(value, np.ndarray) else value for value in clip)] for clip in dataset]
    return [dataset.info.model_dump(), *rows]


def check(clip: TokenClip, info: TokenDatasetInfo) -> None:
    """Fail unless a row fits the properties of its dataset, as docs/file-formats.md describes it."""
    lengths = clip.lengths
    if lengths.shape != (info.blocks,) or not 0 <= lengths.min() <= lengths.max() <= info.latents:
        raise Failure(f"lengths {lengths}")
    if clip.ids.dtype != np.uint16 or clip.ids.shape != (lengths.sum(),):
        raise Failure(f"{clip.ids.dtype} {clip.ids.shape} ids for lengths {lengths}")
    for ids in (clip.ids, clip.condition):
        if ids is not None and len(ids) and ids.max() >= info.codebook_size:
            raise Failure(f"id {ids.max()} of {info.codebook_size}")
    if (0 if clip.condition is None else len(clip.condition)) != info.condition_ids:
        raise Failure(f"condition {clip.condition}")
    if not isinstance(clip.source, str) or not isinstance(clip.start, int):
        raise Failure(f"source {clip.source!r} and start {clip.start!r}")


def write_changed(rng: random.Random, shard: Path) -> None:
    """Write a shard with other columns, values or metadata, as a valid Parquet file. Checksums are left as they are."""
    table = pq.read_table(shard)
    metadata = dict(table.schema.metadata)
    way = rng.randrange(5)
    if way == 0:
        key = rng.choice(sorted(metadata))
        try:
            metadata[key] = to_json(document_changed(rng, json.loads(metadata[key]))).encode(errors="surrogatepass")
        except ValueError:  # Arrow's own entries are no JSON
            del metadata[key]
        table = table.replace_schema_metadata(metadata)
    elif way == 1:
        name = rng.choice(table.column_names)
        table = (
            table.drop_columns([name])
            if rng.random() < 0.5
            else table.rename_columns([f"{other}x" if other == name else other for other in table.column_names])
        )
    elif way == 2:
        rows = table.to_pylist()
        _change_row(rng, rng.choice(rows))
        table = _table(rows, table.schema)
    elif way == 3:
        table = _cast(rng, table)
    else:
        table = rng.choice((table.slice(0, 0), table.slice(1), pa.concat_tables([table, table])))
    pq.write_table(table, shard, row_group_size=rng.choice((1, 3, 1024)))


def _change_row(rng: random.Random, row: dict[str, Any]) -> None:
    name = rng.choice(("ids", "lengths", "lengths", "label", "source", "start", "fps", "width", "condition", "scores"))
    value = row.get(name)
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        value[at] = rng.choice((0, 1, 7, 23, 24, 59, 60, 1000, 65535, None))
        if rng.random() < 0.2:
            del value[at]
    else:
        row[name] = rng.choice((None, [], [1], *(0, -1, 2**31 - 1, 1e300, float("nan")), *TEXTS))


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Build a table with the types of the schema where the values allow it, with nulls wherever they are."""
    columns = {}
    for field in schema:
        values = [row.get(field.name) for row in rows]
        try:
            columns[field.name] = pa.array(values, field.type)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            try:
                columns[field.name] = pa.array(values)
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                columns[field.name] = pa.array([str(value) for value in values])
    return pa.table(columns).replace_schema_metadata(schema.metadata)


def _cast(rng: random.Random, table: pa.Table) -> pa.Table:
    name = rng.choice(table.column_names)
    types = (pa.list_(pa.int64()), pa.list_(pa.float64()), pa.list_(pa.uint8()), pa.string(), pa.float32(), pa.null())
    kind = rng.choice(types)
    at = table.column_names.index(name)
    try:
        return table.set_column(at, name, table[name].cast(kind))
    except (pa.ArrowException, NotImplementedError):
        return table.set_column(at, name, pa.nulls(len(table), kind))
