"""Collections: seeking gives what decoding everything gives, indices stand for folders, small copies go on."""

from __future__ import annotations

import json
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from adaptok.cli.main import main
from adaptok.data.clips import ClipMixture
from adaptok.data.decoding import FrameCache
from adaptok.data.manifests import Entry, read_manifest, write_index
from adaptok.data.resizing import resize_collection
from adaptok.data.videos import ClipSpec, VideoFolder
from adaptok.video.reading import probe, read_video
from tests.helpers.videos import write_video


def write_uneven(path, count):
    """Frames at uneven times, as phones record them."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 600)
        time = 0
        for index in range(count):
            picture = np.full((48, 64, 3), index * 3 % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 600)
            time += int(rng.integers(10, 40))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def folder(tmp_path):
    write_video(tmp_path / "a" / "long.mp4", 700, key_frames=40)
    write_video(tmp_path / "a" / "short.mp4", 5)
    write_video(tmp_path / "b" / "middle.mkv", 90, rate=24)
    write_uneven(tmp_path / "b" / "uneven.mp4", 80)
    whole = (tmp_path / "b" / "middle.mkv").read_bytes()
    (tmp_path / "b" / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    return tmp_path


def test_seeking_gives_the_same_clips(folder):
    videos = VideoFolder(folder)
    assert not videos.broken
    shape = ClipSpec(frames=8, size=32, strides=(1, 2), still_fraction=0.2)
    for seed in range(60):
        sought, decoded = (
            videos.clip(np.random.default_rng(seed), shape, FrameCache(capacity)) for capacity in (0, 2**30)
        )
        assert torch.equal(sought, decoded)


def test_an_index_is_the_folder(folder, capsys):
    (folder / "b" / "zero.avi").touch()
    main(["data", "index", str(folder), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == 6
    assert list(told["broken"]) == [str(folder / "b" / "zero.avi")]
    entries = {entry.path.name: entry for entry in read_manifest(folder / "index.parquet")}
    long = entries["long.mp4"]
    assert (long.frames, long.fps, long.width, long.height, long.label) == (700, 30, 64, 48, "a")
    index, opened = VideoFolder(folder / "index.parquet"), VideoFolder(folder)
    assert index.broken.keys() == opened.broken.keys()
    clips = [ClipMixture([source], [1], frames=8, size=32) for source in (index, opened)]
    assert all(torch.equal(clips[0][i], clips[1][i]) for i in range(10))
    with pytest.raises(SystemExit, match="2"):
        main(["data", "index", str(folder)])  # exists already
    main(["data", "index", str(folder), "--force", "--thorough", "--quiet"])
    assert "damaged" in {e.path.name: e for e in read_manifest(folder / "index.parquet")}["cut.mkv"].error


def test_an_index_is_not_opened_again(tmp_path):
    write_index(tmp_path / "x.parquet", [Entry(tmp_path / "not-there.mp4", frames=40, fps=25)])
    assert VideoFolder(tmp_path / "x.parquet").segments[0].frames == 40


def test_lists_of_ucf_101(folder):
    (folder / "lists").mkdir()
    (folder / "lists" / "trainlist01.txt").write_text("a/long.mp4 1\nb/middle.mkv 2\n")
    entries = read_manifest(folder / "lists" / "trainlist01.txt", root=folder)
    assert [(entry.path.name, entry.label) for entry in entries] == [("long.mp4", "1"), ("middle.mkv", "2")]
    assert len(VideoFolder(folder / "lists" / "trainlist01.txt", root=folder)) == 2


def test_a_small_copy_is_whole_and_goes_on(folder, tmp_path):
    source, copy = tmp_path / "b", tmp_path / "copy"
    write_video(source / "sub" / "large.mp4", 40, (240, 320))
    write_video(source / "sub" / "large.mov", 3, (240, 320))
    (source / "zero.avi").touch()
    Image.fromarray(np.zeros((90, 200, 3), np.uint8)).save(source / "picture.png")
    done = resize_collection(source, copy, 32)
    assert (done.written, done.kept, len(done.broken)) == (6, 0, 1)
    assert json.loads((copy / "broken.json").read_text()).keys() == {str(source / "zero.avi")}
    info = probe(copy / "sub" / "large.mp4.mp4")  # beside large.mov
    assert (info.width, info.height, info.fps, info.frames) == (43 + 1, 32, 30, 40)  # sizes are made even
    small, large = read_video(copy / "sub" / "large.mp4.mp4")[0], read_video(source / "sub" / "large.mp4")[0]
    assert abs(small[7].mean() - large[7].mean()) < 3
    assert Image.open(copy / "picture.jpg").size == (71, 32)
    before = (copy / "middle.mp4").stat().st_mtime_ns
    (copy / "uneven.mp4").unlink()
    done = resize_collection(source, copy, 32)
    assert (done.written, done.kept) == (1, 5)
    assert (copy / "middle.mp4").stat().st_mtime_ns == before
    assert not list(copy.rglob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "{}/nothing"], "no such folder"),
        (["index", "{}/empty"], "no video and no photograph"),
        (["resize", "{}/empty", "{}/out"], "contains no video and no photograph"),
        (["resize", "{}", "{}/out"], "one folder lies in the other"),
        (["resize", "{}/empty", "{}/out", "--size", "4"], "16 pixels or more"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="2"):
        main(["data", *(argument.format(tmp_path) for argument in arguments)])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
