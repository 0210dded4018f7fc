"""Clips of videos: seeking gives what decoding the whole file gives, and indices replace opening files."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from adaptok.data.clips import ClipMixture
from adaptok.data.decoding import FrameCache
from adaptok.data.manifests import VIDEO_SUFFIXES, Entry, find_entries, read_manifest, write_index
from adaptok.data.statistics import collect_statistics
from adaptok.data.videos import ClipSpec, VideoFolder
from tests.helpers.videos import write_video


def write_uneven(path, count):
    """Write frames at uneven times, as phones record them."""
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
    write_video(tmp_path / "b" / "middle.mkv", 90, fps=24)
    write_uneven(tmp_path / "b" / "uneven.mp4", 80)
    whole = (tmp_path / "b" / "middle.mkv").read_bytes()
    (tmp_path / "b" / "cut.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    return tmp_path


def test_seeking_gives_the_same_clips(folder):
    videos = VideoFolder(folder)
    assert not videos.broken
    shape = ClipSpec(frames=8, size=32, strides=(1, 2), still_fraction=0.2)
    for seed in range(60):
        direct, cached = (
            videos.clip(np.random.default_rng(seed), shape, FrameCache(capacity)) for capacity in (0, 2**30)
        )
        assert torch.equal(direct, cached)


def test_an_index_gives_the_clips_of_the_folder(folder):
    (folder / "b" / "zero.avi").touch()
    write_index(folder / "index.parquet", collect_statistics(find_entries(folder, VIDEO_SUFFIXES)))
    entries = {entry.path.name: entry for entry in read_manifest(folder / "index.parquet")}
    assert len(entries) == 6
    assert [name for name, entry in entries.items() if entry.error is not None] == ["zero.avi"]
    long = entries["long.mp4"]
    assert (long.frames, long.fps, long.width, long.height, long.label) == (700, 30, 64, 48, "a")
    index, opened = VideoFolder(folder / "index.parquet"), VideoFolder(folder)
    assert index.broken.keys() == opened.broken.keys()
    clips = [ClipMixture([source], [1], frames=8, size=32) for source in (index, opened)]
    assert all(torch.equal(clips[0][i], clips[1][i]) for i in range(10))


def test_a_thorough_look_finds_damage_anywhere(folder):
    path = folder / "b" / "cut.mkv"
    quick, thorough = (collect_statistics([Entry(path)], thorough=thorough)[0] for thorough in (False, True))
    assert quick.error is None
    assert "damaged" in thorough.error


def test_files_of_an_index_are_not_opened(tmp_path):
    write_index(tmp_path / "x.parquet", [Entry(tmp_path / "not-there.mp4", frames=40, fps=Fraction(25))])
    assert VideoFolder(tmp_path / "x.parquet").segments[0].frames == 40
