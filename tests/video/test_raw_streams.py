"""y4m and raw RGB from streams: the same frames as FFmpeg reads, and damage is named."""

from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest

from adaptok.video.reading import read_video
from adaptok.video.sources import open_stream
from tests.helpers.raw_videos import difference, numbered_frames, numbers, y4m

FRAMES = numbered_frames(6, 35, 47)


def read(data, *arguments, **options):
    source = open_stream(io.BytesIO(data), *arguments, **options)
    return np.stack(list(source.frames)), source


@pytest.mark.parametrize(
    ("color", "pix_fmt", "extra"),
    [
        ("420jpeg", "yuv420p", ""),
        ("411", "yuv411p", ""),
        ("mono", "gray", ""),
        ("420p10", "yuv420p10le", ""),
        ("444", "yuv444p", " XCOLORRANGE=FULL"),
    ],
)
def test_y4m_gives_what_ffmpeg_reads(tmp_path, color, pix_fmt, extra):
    data = y4m(FRAMES, color, pix_fmt, extra)
    (tmp_path / "x.y4m").write_bytes(data)
    expected, rate = read_video(tmp_path / "x.y4m")
    frames, source = read(data)
    assert np.array_equal(frames, expected)
    assert (source.width, source.height, source.fps, source.total) == (47, 35, rate, None)


def test_raw_rgb_and_parts():
    frames, source = read(FRAMES.tobytes(), "rgb24", size=(47, 35), fps=10)
    assert np.array_equal(frames, FRAMES)
    assert source.fps == 10
    assert numbers(read(FRAMES.tobytes(), "rgb24", size=(47, 35), fps=10, start=0.2, stop=0.4)[0], FRAMES) == [2, 3]
    assert difference(read(y4m(FRAMES), fps=15000 / 1001)[0], FRAMES[::2]) < 2
    assert open_stream(io.BytesIO(FRAMES.tobytes()), "rgb24", size=(47, 35)).fps == 30


def test_pipes_return_frames_as_they_come():
    reading, writing = os.pipe()
    received = threading.Event()

    def send():
        data = y4m(FRAMES)
        with open(writing, "wb", buffering=0) as pipe:
            half = len(data) // 2
            pipe.write(data[:half])
            assert received.wait(10)  # the first frames are read before the others are sent
            for start in range(half, len(data), 700):
                pipe.write(data[start : start + 700])

    thread = threading.Thread(target=send)
    thread.start()
    with open(reading, "rb", buffering=0) as pipe:
        source = open_stream(pipe)
        frames = [next(source.frames)]
        received.set()
        frames += list(source.frames)
    thread.join()
    assert difference(np.stack(frames), FRAMES) < 2


def test_the_end_inside_a_frame_is_noted():
    data = y4m(FRAMES)
    for cut in (1, 2000, len(y4m(FRAMES[:1])) - len(y4m(FRAMES[:0])) - 3):
        frames, source = read(data[:-cut])
        assert len(frames) == 5
        assert "standard input: frame 6 of 47x35 pixels" in source.warning
        assert "the 5 frames before it are used" in source.warning
    frames, source = read(FRAMES.tobytes()[:-100], "rgb24", size=(47, 35))
    assert len(frames) == 5
    assert "has 4835 bytes, expected 4935" in source.warning
    frames, source = read(data.replace(b"FRAME", b"FRAUD").replace(b"FRAUD", b"FRAME", 2))
    assert len(frames) == 2
    assert "frame 3 of 47x35 pixels is damaged, with b'FRAUD" in source.warning


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "standard input: empty, expected a video as y4m"),
        (b"hello\n", r"begins with b'hello\\n', expected y4m, which begins with YUV4MPEG2; .* ffmpeg -i VIDEO"),
        (b"YUV4MPEG2 W47 H3", "the header of y4m is cut off after 16 bytes"),
        (b"YUV4", "the header of y4m is cut off after 4 bytes"),
        (b"YUV4MPEG2 W47 F30:1\n", "with the header 'YUV4MPEG2 W47 F30:1', expected one such as"),
        (b"YUV4MPEG2 W47 H3.5\n", "expected one such as"),
        (b"YUV4MPEG2 W47 H35 C420magic\n", "of the color space '420magic', expected 420, 420jpeg"),
        (b"YUV4MPEG2 W0 H35\n", "0x35 pixels, expected 1 to 16384"),
        (b"YUV4MPEG2 W999999 H999999\n", "999999x999999 pixels, expected 1 to 16384"),
        (b"YUV4MPEG2 W9999 H9999\n", "9999x9999 pixels, expected at most 67108864 pixels; raise --max-pixels"),
        (b"YUV4MPEG2 W47 H35 F5000:1\n", "5000 frames per second, expected more than 0"),
        (b"YUV4MPEG2 W47 H35 F30:1\n", "no frames, expected a video as y4m"),
        pytest.param(
            y4m(FRAMES[:1])[:-1],
            r"frame 1 of 47x35 pixels has \d+ bytes, expected \d+; check the sender",
            id="a frame that is cut off",  # encoders may fill padding with anything
        ),
    ],
)
def test_damaged_beginnings(data, message):
    with pytest.raises(ValueError, match=message):
        read(data)


def test_other_mistakes():
    with pytest.raises(ValueError, match="rgb24 without a size"):
        read(b"", "rgb24")
    with pytest.raises(ValueError, match="no frame from 9 seconds on"):
        read(y4m(FRAMES), start=9.0)
