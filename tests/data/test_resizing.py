"""Downscaled copies: complete, and written once."""

from __future__ import annotations

import json
import resource

import numpy as np
import pytest
from PIL import Image

from adaptok.data.resizing import resize_collection
from adaptok.video.reading import probe, read_video
from tests.helpers.videos import write_video


def test_copies_are_complete_and_written_once(tmp_path):
    source, copy = tmp_path / "b", tmp_path / "copy"
    write_video(source / "middle.mkv", 90, fps=24)
    write_video(source / "short.mp4", 5)
    write_video(source / "sub" / "large.mp4", 40, (240, 320))
    write_video(source / "sub" / "large.mov", 3, (240, 320))
    (source / "zero.avi").touch()
    Image.fromarray(np.zeros((90, 200, 3), np.uint8)).save(source / "picture.png")
    done = resize_collection(source, copy, 32)
    assert (done.written, done.kept, len(done.broken)) == (5, 0, 1)
    assert json.loads((copy / "broken.json").read_text()).keys() == {str(source / "zero.avi")}
    info = probe(copy / "sub" / "large.mp4.mp4")  # beside large.mov
    assert (info.width, info.height, info.fps, info.frames) == (43 + 1, 32, 30, 40)  # sizes are made even
    small, large = read_video(copy / "sub" / "large.mp4.mp4")[0], read_video(source / "sub" / "large.mp4")[0]
    assert abs(small[7].mean() - large[7].mean()) < 3
    assert Image.open(copy / "picture.jpg").size == (71, 32)
    before = (copy / "middle.mp4").stat().st_mtime_ns
    (copy / "short.mp4").unlink()
    done = resize_collection(source, copy, 32)
    assert (done.written, done.kept) == (1, 4)
    assert (copy / "middle.mp4").stat().st_mtime_ns == before
    assert not list(copy.rglob(".*"))


def test_folders_that_cannot_be_copied(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, target, size, message in [
        ("empty", "out", 32, "contains no video and no photograph"),
        ("", "out", 32, "one folder lies in the other"),
        ("empty", "", 32, "one folder lies in the other"),
        ("empty", "out", 4, "16 pixels or more"),
    ]:
        with pytest.raises(ValueError, match=message):
            resize_collection(tmp_path / source, tmp_path / target, size)


def test_a_full_disk_is_no_broken_source(tmp_path):
    """A limit of the size of files gives the errors of a full disk."""
    for name in "ab":
        write_video(tmp_path / "in" / f"{name}.mp4", 20)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "in" / "c.png")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "out").mkdir()
    for suffix in (".mp4", ".png"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (400, hard))
        try:
            with pytest.raises(OSError, match=r"(?i)file too large"):
                resize_collection(tmp_path / "in", tmp_path / "out", 32, crf=0, workers=1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not list((tmp_path / "out").rglob("*.*"))
        for path in (tmp_path / "in").glob(f"*{suffix}"):
            path.unlink()
