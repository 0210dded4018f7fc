"""Plans: the same from folders, lists and indices, fixed against later changes of the collection."""

from __future__ import annotations

import pytest

from adaptok.codec.codec import AdapTok
from adaptok.data.manifests import find_entries, write_index
from adaptok.data.statistics import collect_statistics
from adaptok.models.model import Model
from adaptok.tokenization import tokenize
from tests.helpers.models import small_config
from tests.helpers.tokenization import contents, options, rows, write_brightening_video


def test_lists_and_indices_give_the_dataset_of_the_folder(codec, videos, tmp_path):
    names = sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.*"))
    (tmp_path / "list.csv").write_text("".join(f"{name},{name.split('/')[0]}\n" for name in names))
    write_index(tmp_path / "index.parquet", collect_statistics(find_entries(videos, frozenset({".mp4", ".mkv"}))))
    tokenize(videos, tmp_path / "a", codec, options())
    tokenize(tmp_path / "list.csv", tmp_path / "b", codec, options(), root=videos)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    tokenize(tmp_path / "index.parquet", tmp_path / "c", codec, options())
    assert [row["ids"] for row in rows(tmp_path / "a")] == [row["ids"] for row in rows(tmp_path / "c")]


def test_added_files_are_reported_and_removed_files_stop_the_run(codec, tmp_path):
    for name in "ab":
        write_brightening_video(tmp_path / "in" / f"{name}.mp4", 16)
    tokenize(tmp_path / "in", tmp_path / "out", codec, options(shard_clips=1))
    write_brightening_video(tmp_path / "in" / "c.mp4", 16)
    assert tokenize(tmp_path / "in", tmp_path / "out", codec, options(shard_clips=1)).unplanned == ["c.mp4"]
    (tmp_path / "out" / "shard-000001.parquet").unlink()
    (tmp_path / "in" / "b.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.mp4: removed since"):
        tokenize(tmp_path / "in", tmp_path / "out", codec, options(shard_clips=1))
    assert not (tmp_path / "out" / "shard-000001.parquet").exists()


def test_another_model_cannot_resume_a_dataset(codec, videos, tmp_path):
    tokenize(videos, tmp_path / "out", codec, options(limit=1))
    changed = AdapTok(Model(small_config()), "0" * 64)
    with pytest.raises(ValueError, match="begun with model_hash"):
        tokenize(videos, tmp_path / "out", changed, options(limit=1))
