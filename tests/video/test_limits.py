"""Large frames and long videos are refused before they are read."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from adaptok import AdapTok, Limits, VideoError
from adaptok.data.decoding import decode
from adaptok.video.reading import VideoReader, probe
from adaptok.video.sources import open_frames
from tests.helpers.commands import fails, run
from tests.helpers.videos import write_video

SMALL = Limits(max_pixels=40 * 60)
PIXELS = "frames of 64x48 pixels, expected at most 2400 pixels; raise --max-pixels"


def test_limits_are_positive():
    for values in ({"max_pixels": 0}, {"max_duration": 0}, {"max_duration": math.nan}):
        with pytest.raises(ValueError, match="expected positive numbers"):
            Limits(**values)


def test_frames_of_files_and_folders(tmp_path):
    write_video(tmp_path / "x.mp4", 3)
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "frames" / "0.png")
    for path in ("x.mp4", "frames"):
        with pytest.raises(VideoError, match=PIXELS), open_frames(tmp_path / path, limits=SMALL):
            pass
        with open_frames(tmp_path / path, limits=Limits(64 * 48)) as source:
            assert len(list(source.frames)) == (3 if path == "x.mp4" else 1)
    with pytest.raises(VideoError, match=PIXELS):
        probe(tmp_path / "x.mp4", SMALL)
    with pytest.raises(ValueError, match=PIXELS):
        decode(tmp_path / "x.mp4", 1, limits=SMALL)


def test_a_picture_whose_size_the_container_does_not_state(tmp_path):
    Image.new("1", (9000, 9000)).save(tmp_path / "x.png")
    for limits in (SMALL, Limits()):
        with pytest.raises(VideoError, match=r"frames of (9000x9000|at most \d+) pixels"):
            probe(tmp_path / "x.png", limits)


def test_duration(tmp_path):
    write_video(tmp_path / "x.mp4", 20, fps=10)
    message = "x.mp4: 2 seconds, expected at most 1; raise --max-duration .* --start and --stop"
    second = Limits(max_duration=1)
    with VideoReader(tmp_path / "x.mp4", limits=second) as reader, pytest.raises(VideoError, match=message):
        next(reader)
    with VideoReader(tmp_path / "x.mp4", stop=1, limits=second) as reader:
        assert len(list(reader)) == 10


def test_tokens_of_large_and_long_videos(codec: AdapTok):
    tokens = codec.encode(np.zeros((2, 20, 28, 3), np.uint8))
    large = replace(tokens, info=tokens.info.model_copy(update={"width": 200_000, "height": 200_000}))
    tracemalloc.start()
    with pytest.raises(VideoError, match=r"frames of 200000x200000 pixels, .* --max-pixels .* --square"):
        codec.decode(large)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    assert codec.decode(large, original=False).shape == (2, 16, 16, 3)
    slow = replace(tokens, info=tokens.info.model_copy(update={"rate": "1/86400"}))
    with pytest.raises(VideoError, match="172800 seconds, expected at most 86400; raise --max-duration"):
        codec.decode(slow)
    assert len(codec.decode(slow, limits=Limits(max_duration=math.inf))) == 2


def test_the_command_line(tmp_path, capsys):
    write_video(tmp_path / "x.mp4", 3)
    flags = ("--device", "cpu", "--max-pixels", 2400)
    assert PIXELS in fails(capsys, "encode", tmp_path / "x.mp4", tmp_path / "x.adaptok", *flags)
    run(capsys, "encode", tmp_path / "x.mp4", tmp_path / "x.adaptok", "--device", "cpu", "--fit", "crop")
    assert PIXELS in fails(capsys, "decode", tmp_path / "x.adaptok", tmp_path / "y.mp4", *flags)
    assert not (tmp_path / "y.mp4").exists()
    (tmp_path / "in").mkdir()
    (tmp_path / "x.mp4").rename(tmp_path / "in" / "x.mp4")
    broken = run(capsys, "data", "resize", tmp_path / "in", tmp_path / "out", *flags[2:])["broken"]
    assert PIXELS in broken[str(tmp_path / "in" / "x.mp4")]
    duration = fails(capsys, "encode", tmp_path / "in" / "x.mp4", tmp_path / "z.adaptok", "--max-duration", 0.01)
    assert "raise --max-duration" in duration
