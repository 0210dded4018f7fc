"""Plans: the same from folders, lists and indices, fixed against later changes of the collection."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image

from adaptok.allocation.policy import ClipLayout
from adaptok.codec.codec import AdapTok
from adaptok.config.training import PartialGeneratorConfig
from adaptok.data.manifests import find_entries, write_index
from adaptok.data.statistics import collect_statistics
from adaptok.data.token_datasets import TokenDataset
from adaptok.models.model import Model
from adaptok.tokenization import TokenOptions, tokenize
from adaptok.tokenization.options import with_block_budgets
from adaptok.training.token_data import resolve
from tests.helpers.models import small_config
from tests.helpers.raw_videos import numbered_frames
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


def test_shards_store_rates_geometry_and_classes(codec, videos, tmp_path):
    tokenize(videos, tmp_path / "out", codec, options(fps=15, limit=1, condition_frames=3, shard_clips=1))
    dataset = TokenDataset.open(tmp_path / "out")
    assert {(clip.fps, clip.width, clip.height, clip.start) for clip in dataset} == {(15.0, 64, 48, 0)}
    assert dataset.info.class_names == ("class0", "class1")
    assert (dataset.info.condition_frames, dataset.info.settings.fps, dataset.info.settings.fit) == (3, 15.0, "crop")
    config = resolve(PartialGeneratorConfig(width=8, depth=1, heads=1), dataset.info, dataset.labels())
    assert config.condition_frames == 3


@pytest.mark.parametrize(
    ("budget", "expected"), [(256, (456, 242, 172, 150)), (1024, (456, 242, 172, 150)), (300, None)]
)
def test_official_budgets_of_the_scope_batch(budget, expected):
    given = TokenOptions(budget=budget, scope="batch")
    assert with_block_budgets(given, ClipLayout(4, 512, 64)).budget == (expected or budget)
    assert with_block_budgets(given, ClipLayout(4, 192, 16)).budget == budget
    assert with_block_budgets(TokenOptions(budget=budget), ClipLayout(4, 512, 64)).budget == budget


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


@pytest.fixture
def begun(codec, tmp_path):
    """A dataset of two videos, each with a shard of its own, in the folder `out` beside the collection `in`."""
    for index, name in enumerate("ab"):
        write_brightening_video(tmp_path / "in" / f"{name}.mp4", 16, index)
    tokenize(tmp_path / "in", tmp_path / "out", codec, options(shard_clips=1))
    return tmp_path


def resume(codec, folder, source="in", **changes):
    return tokenize(folder / source, folder / "out", codec, options(shard_clips=1, **changes))


@pytest.mark.parametrize("complete", [True, False])
def test_videos_exchanged_between_runs_are_noticed(codec, begun, complete):
    if not complete:
        (begun / "out" / "shard-000001.parquet").unlink()
    write_brightening_video(begun / "in" / "b.mp4", 16, 2)
    with pytest.raises(ValueError, match=r"b\.mp4: changed since the dataset was planned; restore it"):
        resume(codec, begun)
    assert (begun / "out" / "shard-000001.parquet").exists() == complete


def test_shards_exchanged_between_runs_are_noticed(codec, begun):
    shard = [begun / "out" / f"shard-00000{number}.parquet" for number in range(2)]
    whole = [path.read_bytes() for path in shard]
    other = begun / "other"  # a collection with files of the same names
    write_brightening_video(other / "in" / "a.mp4", 16, 5)
    write_brightening_video(other / "in" / "b.mp4", 17, 6)
    resume(codec, other)
    for damaged, message in [
        (whole[0], r"shard-000001\.parquet: written for another plan \(it has clips of a\.mp4\); remove it"),
        ((other / "out" / shard[1].name).read_bytes(), "its videos have other sizes"),
        (whole[1][:-200], "not a Parquet file, or damaged"),
    ]:
        shard[1].write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            resume(codec, begun)
    shard[1].unlink()
    assert resume(codec, begun).written == 1
    assert [path.read_bytes() for path in shard] == whole
    (begun / "out" / "copy.parquet").write_bytes(whole[0])
    with pytest.raises(ValueError, match=r"copy\.parquet: not in the plan of the dataset; move it"):
        resume(codec, begun)


def test_labels_changed_in_a_list_are_noticed(codec, begun):
    (begun / "list.csv").write_text("in/a.mp4,x\nin/b.mp4,y\n")
    tokenize(begun / "list.csv", begun / "listed", codec, options(limit=1))
    (begun / "list.csv").write_text("in/a.mp4,x\nin/b.mp4,z\n")
    with pytest.raises(ValueError, match=r"in/b\.mp4: labelled 'z', but planned as 'y'; restore the label"):
        tokenize(begun / "list.csv", begun / "listed", codec, options(limit=1))


def test_datasets_may_be_moved_with_their_collection(codec, begun, tmp_path_factory):
    place = tmp_path_factory.mktemp("place") / "moved"
    (begun / "out" / "shard-000001.parquet").unlink()
    shutil.copytree(begun, place)  # with the times of change
    for path in (begun / "in").iterdir():
        path.unlink()
    result = resume(codec, place)
    assert (result.written, result.unplanned) == (1, [])
    assert resume(codec, place).written == 0
    write_brightening_video(begun / "in" / "a.mp4", 16, 7)
    with pytest.raises(ValueError, match="begun with source"):
        tokenize(begun / "in", place / "out", codec, options(shard_clips=1))


def test_plans_of_version_1_have_no_sizes(codec, begun):
    plan = json.loads((begun / "out" / "plan.json").read_text())
    videos = [{key: video[key] for key in ("source", "label", "clips")} for video in plan["videos"]]
    (begun / "out" / "plan.json").write_text(json.dumps({**plan, "version": 1, "videos": videos}))
    for path in (begun / "out").glob("*.parquet"):
        path.unlink()
    assert (resume(codec, begun).written, resume(codec, begun).written) == (2, 0)


def test_folders_of_frames_are_videos(codec, tmp_path):
    """They give what arrays of the same frames give, and labels as files do."""
    frames = numbered_frames(20)
    for name in ("walk/a", "walk/b", "run/c"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / "in" / name / f"{index}.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "in/walk/b/3.png")
    result = tokenize(tmp_path / "in", tmp_path / "out", codec, options(fps=12, budget=None))
    assert list(result.broken) == ["walk/b"]
    assert "9x9 pixels, expected 64x48" in result.broken["walk/b"]
    dataset = TokenDataset.open(tmp_path / "out")
    kept = [(clip.source, clip.start, clip.fps) for clip in dataset if clip.source != "walk/b"]
    assert kept == [("run/c", 0, 12.0), ("run/c", 8, 12.0), ("walk/a", 0, 12.0), ("walk/a", 8, 12.0)]
    assert dataset.info.class_names == ("run", "walk")
    whole = codec.encode(frames, fps=12)
    assert rows(tmp_path / "out")[0]["ids"] == whole.ids[: len(rows(tmp_path / "out")[0]["ids"])].tolist()
    assert result.unplanned == []


def test_another_model_cannot_resume_a_dataset(codec, videos, tmp_path):
    tokenize(videos, tmp_path / "out", codec, options(limit=1))
    changed = AdapTok(Model(small_config()), "0" * 64)
    with pytest.raises(ValueError, match="begun with model_hash"):
        tokenize(videos, tmp_path / "out", changed, options(limit=1))
