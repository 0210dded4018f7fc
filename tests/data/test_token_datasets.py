"""Token datasets: round trips, invalid rows and files, and other readers of Parquet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adaptok.data.token_datasets import TokenDataset, read_info, read_notes, write_shard
from tests.helpers.generators import info, make_clips

SCHEMA_KEY, CHECKSUMS_KEY = b"adaptok", b"adaptok.checksums"


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
    table = table.replace_schema_metadata({k: v for k, v in table.schema.metadata.items() if k != CHECKSUMS_KEY})
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = TokenDataset.open(tmp_path)
    assert [(clip.fps, clip.width, clip.height) for clip in dataset] == 2 * [(None,) * 3] + 2 * [(25.0, 32, 24)]
    assert dataset.labels() == ["bounce", "orbit", "slide", "spin"]  # spin is a class without clips


def test_flipped_bits_are_noticed(tmp_path):
    """Flips anywhere in a shard are refused, or change nothing that is read."""
    path, of = tmp_path / "x.parquet", info(condition_frames=3)
    write_shard(path, make_clips(30, of), of)
    data, dataset = path.read_bytes(), TokenDataset.open(path, scores=True)
    rng, refused = np.random.default_rng(0), []
    for _ in range(100):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read = TokenDataset.open(path, scores=True)
        except ValueError as error:
            refused.append(str(error))
        else:
            assert read.info == dataset.info
            assert read.table.equals(dataset.table)
    assert len(refused) > 50
    assert not any("\n" in message for message in refused)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("lengths", pa.array([[1, 1]], pa.list_(pa.uint16())), "row 0: 2 lengths, expected 3"),
        ("lengths", pa.array([[1, 1, 7]], pa.list_(pa.uint16())), "row 0: 7 among the lengths, expected less than 7"),
        ("lengths", pa.array([[1, 1, 2]], pa.list_(pa.uint16())), "row 0: 3 ids, expected 4"),
        ("lengths", pa.array([None], pa.list_(pa.uint16())), "row 0: lengths is null"),
        ("ids", pa.array([[1, 60, 3]], pa.list_(pa.uint16())), "row 0: 60 among the ids, expected less than 60"),
        ("ids", pa.array([[1, None, 3]], pa.list_(pa.uint16())), "1 of the ids are null"),
        ("ids", pa.array([[1, 2, 3]], pa.list_(pa.int64())), "ids of type list<element: int64>, expected"),
        ("condition", pa.array([[1]], pa.list_(pa.uint16())), "row 0: 1 ids of the condition, expected 0"),
        ("scores", pa.array([[1.0]], pa.list_(pa.float32())), "row 0: 1 scores, expected 9"),
        ("source", pa.array([""]), "row 0: no source"),
        ("start", pa.array([-1]), "row 0: start -1, expected at least 0"),
        ("fps", pa.array([float("nan")]), "row 0: fps nan, expected"),
        ("width", pa.array([0], pa.int32()), "row 0: width 0, expected at least 1"),
        ("ids", None, "there is no column ids"),
    ],
)
def test_invalid_rows_without_checksums_are_refused(tmp_path, column, values, message):
    path = tmp_path / "x.parquet"
    clip = make_clips(1, info())[0]._replace(ids=np.array([1, 2, 3], np.uint16), lengths=np.array([1, 1, 1]))
    write_shard(path, [clip], info())
    table = pq.read_table(path)
    place = table.column_names.index(column)
    table = table.remove_column(place) if values is None else table.set_column(place, column, values)
    table = table.replace_schema_metadata({k: v for k, v in table.schema.metadata.items() if k != CHECKSUMS_KEY})
    pq.write_table(table, path)
    with pytest.raises(ValueError, match=f"x.parquet: damaged, {message}"):
        TokenDataset.open(path, scores=True)


def test_removed_rows_are_noticed_without_checksums(tmp_path):
    write_shard(tmp_path / "x.parquet", make_clips(3, info()), info())
    table = pq.read_table(tmp_path / "x.parquet")
    table = table.replace_schema_metadata({k: v for k, v in table.schema.metadata.items() if k != CHECKSUMS_KEY})
    pq.write_table(table.slice(1), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="it has 2 rows, expected 3"):
        TokenDataset.open(tmp_path)


def test_shards_rewritten_by_other_programs_keep_their_checksums(tmp_path):
    path, of = tmp_path / "x.parquet", info(condition_frames=3)
    write_shard(path, make_clips(30, of), of)
    before = TokenDataset.open(path)
    pq.write_table(pq.read_table(path), path, compression="snappy", row_group_size=7, use_dictionary=False)
    assert TokenDataset.open(path).table.equals(before.table)


def test_copies_of_shards_in_the_output_of_tokenize_are_noticed(tmp_path):
    for name in ("a", "copy of a"):
        write_shard(tmp_path / f"{name}.parquet", make_clips(3, info()), info())
    assert len(TokenDataset.open(tmp_path)) == 6
    (tmp_path / "plan.json").touch()
    with pytest.raises(ValueError, match=r"copy of a\.parquet: has clips of .*, as a\.parquet has; remove"):
        TokenDataset.open(tmp_path)


def test_files_that_are_not_shards(tmp_path):
    (tmp_path / "text.parquet").write_text("no table")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "table.parquet")
    future = pa.schema([("x", pa.int64())], metadata={SCHEMA_KEY: b'{"version": 99}'})
    pq.write_table(pa.table({"x": [1]}, schema=future), tmp_path / "future.parquet")
    for name, text in [("list", b"[]"), ("deep", b"[" * 100_000), ("cut", b"{")]:
        schema = pa.schema([("x", pa.int64())], metadata={SCHEMA_KEY: text})
        pq.write_table(pa.table({"x": [1]}, schema=schema), tmp_path / f"{name}.parquet")
    for name, message in [
        ("text", "not a Parquet file"),
        ("table", "not of a token dataset"),
        ("future", "version 99, expected version 1"),
        ("list", "its metadata adaptok are no mapping"),
        ("deep", "its metadata adaptok are not JSON"),
        ("cut", "its metadata adaptok are not JSON"),
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
