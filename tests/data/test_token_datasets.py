"""Token datasets: round trips, invalid rows and files, and other readers of Parquet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adaptok.data.token_datasets import TokenDataset, read_info, read_notes, write_shard
from tests.helpers.generators import info, make_clips

SCHEMA_KEY = b"adaptok"


@pytest.mark.parametrize("of", [info(), info(condition_frames=3)], ids=["labels", "condition"])
def test_rows_are_read_as_they_were_written(tmp_path, of):
    clips = make_clips(5, of)
    write_shard(tmp_path / "b.parquet", clips[2:], of)
    write_shard(tmp_path / "a.parquet", clips[:2], of)
    dataset = TokenDataset.open(tmp_path)
    assert dataset.info == of
    assert len(dataset) == 5
    for read, written in zip(dataset, clips, strict=True):
        assert read.ids.tolist() == written.ids.tolist()
        assert read.lengths.tolist() == written.lengths.tolist()
        assert (read.label, read.source, read.start) == (written.label, written.source, written.start)
        if of.condition_frames:
            assert read.condition.tolist() == written.condition.tolist()
    notes = read_notes(tmp_path / "b.parquet")
    assert (notes.clips, notes.tokens, notes.broken) == (3, sum(len(clip.ids) for clip in clips[2:]), {})


def test_labels_are_sorted_by_value(tmp_path):
    labels = ["10", "b", "9", None, "a"]
    clips = [clip._replace(label=label) for clip, label in zip(make_clips(5, info()), labels, strict=True)]
    write_shard(tmp_path / "x.parquet", clips, info())
    assert TokenDataset.open(tmp_path).labels() == ["9", "10", "a", "b"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": np.zeros(2, np.int64)}, r"lengths \[0, 0\], expected 3 of 0 to 6"),
        ({"lengths": np.zeros(3, np.int64)}, "the sum of lengths"),
        ({"ids": np.full(2, 60, np.uint16), "lengths": np.array([1, 1, 0])}, "id 60, expected an id below"),
        ({"condition": np.zeros(1, np.uint16)}, "condition of 1 ids, expected 0"),
    ],
)
def test_invalid_rows_are_not_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        write_shard(tmp_path / "x.parquet", [make_clips(1, info())[0]._replace(**changes)], info())
    assert not list(tmp_path.iterdir())


def test_shards_of_earlier_versions_are_read_with_new_ones(tmp_path):
    old, new = info(), info(class_names=("orbit", "spin"))
    clips = make_clips(4, old)
    write_shard(tmp_path / "b.parquet", [clip._replace(fps=25.0, width=32, height=24) for clip in clips[2:]], new)
    write_shard(tmp_path / "a.parquet", clips[:2], old)
    table = pq.read_table(tmp_path / "a.parquet").drop_columns(["fps", "width", "height"])
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = TokenDataset.open(tmp_path)
    assert [(clip.fps, clip.width, clip.height) for clip in dataset] == 2 * [(None,) * 3] + 2 * [(25.0, 32, 24)]
    assert dataset.labels() == ["bounce", "orbit", "slide", "spin"]  # spin is a class without clips


def test_files_that_are_not_shards(tmp_path):
    (tmp_path / "text.parquet").write_text("no table")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "table.parquet")
    future = pa.schema([("x", pa.int64())], metadata={SCHEMA_KEY: b'{"version": 99}'})
    pq.write_table(pa.table({"x": [1]}, schema=future), tmp_path / "future.parquet")
    for name, message in [
        ("text", "not a Parquet file"),
        ("table", "not of a token dataset"),
        ("future", "version 99, expected version 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_info(tmp_path / f"{name}.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="contains no shard"):
        TokenDataset.open(tmp_path / "empty")


def test_old_names_in_the_metadata_are_read():
    old = {**info().model_dump(), "settings": {"budget": 256.0, "scope": "clip", "rate": 12.0}}
    old["step"] = old.pop("length_step")
    read = info().parse(old)
    assert read.length_step == info().length_step
    assert read.settings.fps == 12
    assert read.settings.model_dump()["budget"] == 256


def test_other_programs_read_token_datasets(tmp_path):
    import datasets  # here, since these imports take seconds
    import duckdb
    import pandas

    clips, path = make_clips(3, info()), tmp_path / "x.parquet"
    write_shard(path, clips, info())
    expected = [clip.ids.tolist() for clip in clips]
    assert [ids.tolist() for ids in pandas.read_parquet(path)["ids"]] == expected
    query = f"select count(*), sum(len(ids)) from '{tmp_path}/*.parquet'"
    assert duckdb.sql(query).fetchall() == [(len(clips), sum(map(len, expected)))]
    dataset = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(dataset["ids"]) == expected
