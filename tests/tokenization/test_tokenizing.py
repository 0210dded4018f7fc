"""Token datasets: rows are what the codec says, written once whatever is killed, by one process, several, or Ray.

ADAPTOK_KILLS and ADAPTOK_KILLED_CLIPS make the test of kills longer.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from adaptok.allocation.knapsack import allocate
from adaptok.cli.main import main
from adaptok.codec.codec import AdapTok
from adaptok.data.manifests import find_entries, write_index
from adaptok.data.statistics import collect_statistics
from adaptok.data.token_datasets import TokenClip, TokenDataset
from adaptok.models.model import Model, weights_hash
from adaptok.tokenization import TokenOptions, TokenPlan, tokenize
from adaptok.tokenization.shard_writer import ShardWriter
from adaptok.video.geometry import Geometry
from adaptok.video.reading import read_video
from adaptok.video.writing import VideoWriter
from tests.helpers.models import small_config

T, G, K, L, STEP, PT = 8, 4, 8, 4, 2, 2  # of the small model


@pytest.fixture(scope="module")
def codec() -> AdapTok:
    torch.manual_seed(0)
    model = Model(small_config())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return AdapTok(model, weights_hash(model.state_dict()))


@pytest.fixture(scope="module")
def model(codec, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    codec.save_pretrained(folder)
    return str(folder)


def write_video(path: Path, frames: int, seed: int = 0) -> None:
    """Noise that brightens, so that blocks differ in what they need."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 128, (frames, 6, 8, 3), dtype=np.uint8)
    with VideoWriter(path, 30) as writer:
        for index, frame in enumerate(noise):
            writer.write((frame * (index + 1) // frames + index).astype(np.uint8).repeat(8, 0).repeat(8, 1))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """16 to 40 frames each, one shorter than a clip, one cut off, and two that hold nothing."""
    folder = tmp_path_factory.mktemp("videos")
    for index, frames in enumerate((16, 27, 40, 24, 33)):
        write_video(folder / f"class{index % 2}" / f"{index}.mp4", frames, index)
    write_video(folder / "class0" / "short.mp4", 5, 9)
    write_video(folder / "class1" / "whole.mkv", 40, 10)
    whole = (folder / "class1" / "whole.mkv").read_bytes()
    (folder / "class1" / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "class1" / "zero.mp4").touch()
    (folder / "class0" / "text.mp4").write_text("no video")
    return folder


def options(**values) -> TokenOptions:
    return TokenOptions(**{"budget": 12, "shard_clips": 8, **values})


def rows(out: Path) -> list[dict]:
    return pq.read_table(sorted(out.glob("*.parquet"))).to_pylist()


def shards(out: Path) -> dict[str, tuple[int, int, bytes]]:
    """Inode, time and bytes of each."""
    found = {}
    for path in sorted(out.glob("*.parquet")):
        status = path.stat()
        found[path.name] = (status.st_ino, status.st_mtime_ns, path.read_bytes())
    return found


def contents(out: Path) -> dict[str, bytes]:
    return {name: data for name, (_, _, data) in shards(out).items()}


def clips_of(video: Path, stride: int) -> torch.Tensor:
    """Whole clips `[N, 3, T, S, S]`, by slicing."""
    frames, _ = read_video(video)
    squares = Geometry("crop", frames.shape[2], frames.shape[1], 16).apply(frames)
    if squares.shape[1] < T:
        squares = torch.cat([squares, squares[:, -1:].expand(-1, T - squares.shape[1], -1, -1)], 1)
    return torch.stack([squares[:, i : i + T] for i in range(0, squares.shape[1] - T + 1, stride)])


def by_video(out: Path) -> dict[str, list[TokenClip]]:
    found: dict[str, list[TokenClip]] = {}
    for clip in TokenDataset.open(out):
        found.setdefault(clip.source, []).append(clip)
    return found


@pytest.mark.parametrize("stride", [1, 3, 8, 11])
def test_every_start_frame_is_there_with_the_ids_of_the_codec(codec, videos, tmp_path, stride):
    done = tokenize(videos, tmp_path / "out", codec, options(stride=stride))
    found, scores = by_video(tmp_path / "out"), rows(tmp_path / "out")
    assert list(found) == sorted(found)
    assert done.clips == sum(map(len, found.values())) == len(scores)
    place = 0
    for source, clips in found.items():
        expected = clips_of(videos / source, stride)
        assert [clip.start for clip in clips] == [index * stride for index in range(len(expected))]
        assert {clip.label for clip in clips} == {source.split("/")[0]}
        latents = codec.encode_clips(expected)
        predicted = codec.score_clips(latents, normalized=False).flatten(0, 1).numpy()
        lengths = allocate(predicted, 12 * len(clips), length_step=STEP).lengths.reshape(-1, G)
        stored = np.array([row["scores"] for row in scores[place : place + len(clips)]], np.float32)
        np.testing.assert_allclose(stored.reshape(-1, L), predicted, rtol=1e-4)
        place += len(clips)
        for clip, ids, own in zip(clips, latents.ids.numpy(), lengths, strict=True):
            assert clip.lengths.tolist() == own.tolist()
            assert clip.ids.tolist() == ids[np.arange(K) < own[:, None]].tolist()
    assert list(found) == [name for name in found if name not in ("class1/zero.mp4", "class0/text.mp4")]
    assert "class0/short.mp4" in found


@pytest.mark.parametrize("scope", ["video", "clip", "stream"])
@pytest.mark.parametrize("choice", [{"budget": 12}, {"budget": None, "target": 0.12}, {"budget": 9, "uniform": True}])
def test_a_video_is_what_encode_makes_of_it(codec, videos, tmp_path, scope, choice):
    tokenize(videos, tmp_path / "out", codec, options(scope=scope, **choice))
    for source, clips in by_video(tmp_path / "out").items():
        tokens = codec.encode(videos / source, scope=scope, **choice)
        if tokens.info.frames % T == 0:  # else the last clip, which is not whole, has its share there
            assert np.concatenate([clip.ids for clip in clips]).tolist() == tokens.ids.tolist()
            assert np.concatenate([clip.lengths for clip in clips]).tolist() == tokens.lengths.tolist()


@pytest.mark.parametrize("scope", ["video", "clip", "batch", "stream"])
def test_a_target_that_is_out_of_reach_takes_the_best(codec, videos, tmp_path, scope):
    tokenize(videos, tmp_path / "out", codec, options(budget=None, target=1e-6, scope=scope))
    for row in rows(tmp_path / "out"):
        chosen = np.array(row["lengths"]) // STEP - 1
        scores = np.array(row["scores"]).reshape(G, L)
        np.testing.assert_allclose(scores[np.arange(G), chosen], scores.min(1), rtol=1e-4)


def test_the_scope_batch_is_the_official_procedure(codec, videos, tmp_path):
    one = tmp_path / "class"
    write_video(one / "a.mp4", 45, 3)  # 5 clips: a batch of 4, and 1
    for budget in (12, (8, 4, 2, 2)):
        out = tmp_path / f"{budget}"
        tokenize(one, out, codec, options(scope="batch", budget=budget))
        tokens = codec.encode(read_video(one / "a.mp4")[0][:40], budget, "batch", batch_size=4)
        clips = by_video(out)["a.mp4"]
        assert np.concatenate([clip.lengths for clip in clips]).tolist() == tokens.lengths.tolist()
        assert np.concatenate([clip.ids for clip in clips]).tolist() == tokens.ids.tolist()
    with pytest.raises(ValueError, match="begun with batch_size 4, not 2"):
        tokenize(one, out, codec, options(scope="batch", budget=(8, 4, 2, 2), batch_size=2))


@pytest.mark.parametrize("frames", [1, 3, 4, 7])
@pytest.mark.parametrize("scope", ["video", "clip", "batch", "stream"])
def test_the_condition_is_the_first_frames_alone(codec, videos, tmp_path, frames, scope):
    done = tokenize(videos, tmp_path / "out", codec, options(condition_frames=frames, scope=scope))
    dataset = TokenDataset.open(tmp_path / "out")
    first, reached = frames // PT, -(-frames // PT)
    assert (dataset.info.first_block, dataset.info.condition_ids) == (first, reached * K)
    for source, clips in by_video(tmp_path / "out").items():
        shown = clips_of(videos / source, T)
        shown[:, :, frames:] = shown[:, :, frames - 1 : frames]
        ids = codec.encode_clips(shown).ids[:, :reached].flatten(1)
        assert [clip.condition.tolist() for clip in clips] == ids.tolist()
        for clip in clips:
            assert clip.lengths[:first].tolist() == [K] * first
            assert clip.ids[: first * K].tolist() == clip.condition[: first * K].tolist()
        free = sum(int(clip.lengths[first:].sum()) for clip in clips)
        if scope in ("video", "clip"):
            assert len(clips) * (3 * (G - first) - STEP) < free <= len(clips) * 3 * (G - first)
    if scope == "batch":  # each batch of a block meets its budget to the step
        assert abs(done.tokens - done.clips * (K * first + 3 * (G - first))) <= STEP * done.clips


def test_everything_or_no_scores(codec, videos, tmp_path):
    done = tokenize(videos, tmp_path / "all", codec, options(budget=None, limit=2, labels=False, scores=False))
    found = rows(tmp_path / "all")
    assert {(row["label"], row["scores"], len(row["ids"])) for row in found} == {(None, None, G * K)}
    assert done.tokens == done.clips * G * K
    starts = [row["start"] for row in found if row["source"] == "class0/2.mp4"]
    assert starts == [0, T]
    tokenize(videos, tmp_path / "slow", codec, options(fps=15, stride=1))
    assert len(by_video(tmp_path / "slow")["class0/2.mp4"]) == 20 - T + 1


def test_lists_and_indices_are_the_folder(codec, videos, tmp_path):
    names = sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.*"))
    (tmp_path / "list.csv").write_text("".join(f"{name},{name.split('/')[0]}\n" for name in names))
    write_index(tmp_path / "index.parquet", collect_statistics(find_entries(videos, frozenset({".mp4", ".mkv"}))))
    tokenize(videos, tmp_path / "a", codec, options())
    tokenize(tmp_path / "list.csv", tmp_path / "b", codec, options(), root=videos)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    tokenize(tmp_path / "index.parquet", tmp_path / "c", codec, options())
    assert [row["ids"] for row in rows(tmp_path / "a")] == [row["ids"] for row in rows(tmp_path / "c")]


def test_broken_files_are_listed(codec, videos, tmp_path):
    out = tmp_path / "out"
    done = tokenize(videos, out, codec, options(stride=2))
    assert done.broken.keys() == {"class0/text.mp4", "class1/cut.mkv", "class1/zero.mp4"}
    assert json.loads((out / "broken.json").read_text()) == done.broken
    assert "of about 40 frames" in done.broken["class1/cut.mkv"]
    assert 0 < len(by_video(out)["class1/cut.mkv"]) < len(by_video(out)["class1/whole.mkv"])
    assert {path.name for path in out.iterdir() if not path.name.startswith("shard-")} == {"broken.json", "plan.json"}


def test_a_shard_may_have_no_rows(codec, tmp_path):
    """A file whose header is whole is found to be broken only when it is decoded."""
    write_video(tmp_path / "in" / "b.mp4", 16)
    data = bytearray((tmp_path / "in" / "b.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    (tmp_path / "in" / "a.mp4").write_bytes(bytes(data))
    index = tmp_path / "index.csv.parquet"
    write_index(index, [replace(entry, frames=16) for entry in find_entries(tmp_path / "in", frozenset({".mp4"}))])
    done = tokenize(index, tmp_path / "out", codec, options(shard_clips=1))
    assert (done.shards, done.clips, list(done.broken)) == (2, 2, ["in/a.mp4"])
    assert len(TokenDataset.open(tmp_path / "out")) == 2


def test_it_goes_on_and_rewrites_nothing(codec, videos, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    tokenize(videos, whole, codec, options())
    seen: list[int] = []

    class Stop(Exception):
        pass

    def begun(plan, clips):
        def advance(count):
            seen.append(count)
            if sum(seen) > clips / 2:
                raise Stop

        return advance

    with pytest.raises(Stop):
        tokenize(videos, out, codec, options(), on_start=begun)
    before = shards(out)
    assert 0 < len(before) < len(shards(whole))
    assert not (out / ".partial").exists()
    done = tokenize(videos, out, codec, options())
    assert done.written == done.shards - len(before)
    assert {name: value for name, value in shards(out).items() if name in before} == before
    assert contents(out) == contents(whole)
    after = shards(out)
    assert tokenize(videos, out, codec, options()).written == 0
    assert shards(out) == after


def test_another_process_may_write_at_the_same_time(codec, videos, tmp_path):
    """A second run in the middle of the first takes what is not claimed, and waits for nothing that is dead."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    tokenize(videos, whole, codec, options())
    inner = []

    def begun(plan, clips):
        def advance(count):
            if not inner:
                inner.append(len(contents(out)))
                writer = ShardWriter(codec, TokenPlan.read(out), out)
                inner.extend(writer.write(number) for number in range(len(plan.shards)))

        return advance

    done = tokenize(videos, out, codec, options(), on_start=begun)
    assert inner == [0, False, *[True] * (done.shards - 1)]
    assert done.written == 1
    assert contents(out) == contents(whole)


def test_files_that_come_are_told_and_files_that_go_stop(codec, tmp_path):
    for name in "ab":
        write_video(tmp_path / "in" / f"{name}.mp4", 16)
    tokenize(tmp_path / "in", tmp_path / "out", codec, options(shard_clips=1))
    write_video(tmp_path / "in" / "c.mp4", 16)
    assert tokenize(tmp_path / "in", tmp_path / "out", codec, options(shard_clips=1)).unplanned == ["c.mp4"]
    (tmp_path / "out" / "shard-000001.parquet").unlink()
    (tmp_path / "in" / "b.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.mp4: removed since"):
        tokenize(tmp_path / "in", tmp_path / "out", codec, options(shard_clips=1))
    assert not (tmp_path / "out" / "shard-000001.parquet").exists()


def test_two_workers_write_the_same_and_may_die(codec, model, videos, tmp_path):
    tokenize(videos, tmp_path / "one", codec, options(stride=2))

    def begun(plan, clips):
        def advance(count):
            multiprocessing.active_children()[0].kill()

        return advance

    with pytest.raises(ChildProcessError, match="exit code -9"):
        tokenize(videos, tmp_path / "two", model, options(stride=2), device="cpu", workers=2, on_start=begun)
    assert not multiprocessing.active_children()
    assert not (tmp_path / "two" / ".partial").exists()
    left: list[int] = []
    done = tokenize(
        videos,
        tmp_path / "two",
        model,
        options(stride=2),
        device="cpu",
        workers=2,
        on_start=lambda plan, clips: left.append(clips) or (lambda count: left.append(-count)),
    )
    assert sum(left) == 0  # progress ends at its end
    assert done.clips == len(rows(tmp_path / "one"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_what_goes_wrong_in_a_worker_is_told(model, tmp_path):
    for name in "ab":
        write_video(tmp_path / "in" / f"{name}.mp4", 16)
    tokenize(tmp_path / "in", tmp_path / "out", model, options(shard_clips=1), device="cpu")
    for name in "ab":
        (tmp_path / "in" / f"{name}.mp4").rename(tmp_path / f"{name}.mp4")
    for path in (tmp_path / "out").glob("*.parquet"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"\.mp4: removed since"):
        tokenize(tmp_path / "in", tmp_path / "out", model, options(shard_clips=1), device="cpu", workers=2)


def test_ray_writes_the_same(codec, model, videos, tmp_path):
    pytest.importorskip("ray.data", reason="Ray cannot be imported here: pip install 'adaptok[ray]' to run this test")
    tokenize(videos, tmp_path / "one", codec, options(stride=2))
    done = tokenize(videos, tmp_path / "ray", model, options(stride=2), device="cpu", workers=2, engine="ray")
    assert done.written == done.shards
    assert contents(tmp_path / "one") == contents(tmp_path / "ray")


def test_missing_ray_is_told_before_any_work(model, videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    fails(videos, "--out", tmp_path / "out", "--model", model, "--engine", "ray", "--device", "cpu")
    assert_one_line(capsys, "pip install 'adaptok[ray]'")
    assert not (tmp_path / "out").exists()


def command(source, out, model, *arguments) -> list[str]:
    words = [sys.executable, "-m", "adaptok", "tokenize", source, "--out", out, "--model", model, "--device", "cpu"]
    return [str(word) for word in [*words, "--budget", 12, "--shard-clips", 4, *arguments]]


def test_kills_lose_and_double_nothing(codec, model, tmp_path):
    """SIGKILL at random moments: of the main process alone, whose workers find out, or of all at once."""
    kills, clips = int(os.environ.get("ADAPTOK_KILLS", 3)), int(os.environ.get("ADAPTOK_KILLED_CLIPS", 48))
    source, whole, out = tmp_path / "in", tmp_path / "whole", tmp_path / "out"
    for index in range(clips // 4):
        write_video(source / f"class{index % 3}" / f"{index:03d}.mp4", 20 * (1 + index % 2), index)
    started = options(shard_clips=4, stride=6)
    assert tokenize(source, whole, codec, started).clips >= clips
    rng, finished = np.random.default_rng(), {}
    for kill in range(kills):
        process = subprocess.Popen(
            command(source, out, model, "--stride", 6, "--workers", 1 + kill % 2, "--quiet"), start_new_session=True
        )
        patience = int(rng.integers(0, 4))  # shards to wait for; none: any moment from the start on
        deadline = time.monotonic() + (60 if patience else 4 * rng.random())
        while process.poll() is None and time.monotonic() < deadline:
            if patience and len(shards(out)) >= len(finished) + patience:
                time.sleep(0.2 * rng.random())
                break
            time.sleep(0.005)
        if kill % 3:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        now = shards(out) if out.exists() else {}
        assert {name: now[name] for name in finished} == finished
        assert all(data[:4] == data[-4:] == b"PAR1" for _, _, data in now.values())
        finished = now
    print(f"{kills} kills left {len(finished)} of {len(shards(whole))} shards")
    subprocess.run(command(source, out, model, "--stride", 6, "--workers", 2, "--quiet"), check=True)
    now = shards(out)
    assert {name: now[name] for name in finished} == finished
    assert rows(out) == rows(whole)
    assert contents(out) == contents(whole)
    assert not (out / ".partial").exists()


def test_interrupted_work_leaves_nothing_half_made(model, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for index in range(8):
        write_video(source / f"{index}.mp4", 200, index)
    process = subprocess.Popen(
        command(source, out, model, "--stride", 1, "--workers", 2), start_new_session=True, stderr=subprocess.PIPE
    )
    while not list(out.glob(".partial/*")) and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not (out / ".partial").exists()


def test_other_programs_read_it(codec, videos, tmp_path):
    done = tokenize(videos, tmp_path / "out", codec, options(condition_frames=3))
    files = sorted(map(str, (tmp_path / "out").glob("*.parquet")))
    expected = [row["ids"] for row in rows(tmp_path / "out")]
    pandas = pytest.importorskip("pandas", reason="pandas cannot be imported here")
    frame = pandas.read_parquet(tmp_path / "out" / "shard-000000.parquet")
    assert [ids.tolist() for ids in frame["ids"]] == expected[: len(frame)]
    duckdb = pytest.importorskip("duckdb", reason="DuckDB cannot be imported here")
    query = f"select count(*), sum(len(ids)) from '{tmp_path}/out/*.parquet'"
    assert duckdb.sql(query).fetchall() == [(done.clips, done.tokens)]
    datasets = pytest.importorskip("datasets", reason="datasets cannot be imported here")
    dataset = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert list(dataset["ids"]) == expected


def fails(*arguments) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["tokenize", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "many"], "many"),
        (["--budget", "0"], "expected 8 to 32 tokens per clip"),
        (["--budget", "12", "--target", "0.1"], "exclude each other"),
        (["--stride", "0"], "stride"),
        (["--stride", "4", "--scope", "stream"], "its clips follow each other"),
        (["--condition-frames", "8"], "expected 1 to 7"),
        (["--condition-frames", "-1"], "condition_frames"),
        (["--shard-clips", "0"], "shard_clips"),
        (["--batch-size", "0"], "batch-size"),
        (["--workers", "0"], "workers"),
        (["--engine", "steam"], "steam"),
        (["--fps", "0"], "fps"),
        (["--model", "no/such/model"], "no such model"),
    ],
)
def test_mistakes_are_told_in_a_line(model, videos, tmp_path, capsys, arguments, message):
    given = [] if "--model" in arguments else ["--model", model]
    fails(videos, "--out", tmp_path / "out", "--device", "cpu", *given, *arguments)
    assert_one_line(capsys, message)
    assert not (tmp_path / "out").exists()


def test_sources_and_folders_that_do_not_fit(model, codec, videos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").touch()
    (tmp_path / "twice.csv").write_text("a.mp4,1\na.mp4,2\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "part.parquet").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "plan.json").write_text("{")
    (tmp_path / "file").touch()
    tokenize(videos, tmp_path / "begun", codec, options(limit=1))
    for source, out, arguments, message in [
        (tmp_path / "empty", "out", [], "no video in it"),
        (tmp_path / "none", "out", [], "no such folder"),
        (tmp_path / "bad", "out", [], "no readable video"),
        (tmp_path / "twice.csv", "out", [], "listed as '1' and as '2'"),
        (tmp_path / "file", "out", [], "expected a folder, or a list"),
        (videos, "other", [], "holds part.parquet and no plan.json"),
        (videos, "damaged", [], "not a plan"),
        (videos, "file", [], "expected a folder to write"),
        (videos, "file/out", [], "file"),
        (videos, "begun", ["--limit", 2], "begun with limit 1, not 2"),
        (videos, "begun", ["--limit", 1, "--stride", 3], "begun with stride 8, not 3"),
        (videos, "begun", ["--limit", 1, "--budget", 10], "begun with budget 12"),
        (tmp_path / "bad", "begun", ["--limit", 1], "begun with source"),
    ]:
        given = ["--model", model, "--shard-clips", 8, *([] if "--budget" in arguments else ["--budget", 12])]
        fails(source, "--out", tmp_path / out, "--device", "cpu", *given, *arguments)
        assert_one_line(capsys, message)
        assert not (tmp_path / "out").exists()
    with torch.no_grad():
        changed = AdapTok(Model(small_config()), "0" * 64)
    with pytest.raises(ValueError, match="begun with model_hash"):
        tokenize(videos, tmp_path / "begun", changed, options(limit=1))


def assert_one_line(capsys, message) -> None:
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip() and "files" not in line[:70]]
    assert captured.out == ""
    assert len(lines) == 1, captured.err
    assert message in lines[0]
