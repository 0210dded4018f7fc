"""Video files made for each test: frames are read as they are displayed."""

from __future__ import annotations

import gc
import multiprocessing
import re
from contextlib import nullcontext
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from adaptok.video.container import VideoError
from adaptok.video.reading import VideoReader, probe, read_video
from adaptok.video.writing import VideoWriter
from tests.helpers.raw_videos import difference, numbered_frames, numbers, rotate_display, write_raw


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25), Fraction(7)])
def test_constant_rate_gives_each_frame_once(tmp_path, rate):
    frames = numbered_frames(30)
    with VideoWriter(tmp_path / "x.mp4", rate) as writer:
        writer.write(frames)
    back, result = read_video(tmp_path / "x.mp4")
    assert result == rate
    assert numbers(back, frames) == list(range(30))


def test_seeking_gives_the_slice(tmp_path):
    frames = numbered_frames(36)
    write_raw(tmp_path / "x.mp4", frames, options={"g": "8", "bf": "2"})
    for start, stop in ((0.0, 0.5), (0.3, 0.8), (0.7, None), (1.16, 9.0)):
        part, _ = read_video(tmp_path / "x.mp4", start=start, stop=stop)
        last = 36 if stop is None else min(36, round(stop * 30))
        assert numbers(part, frames) == list(range(int(np.ceil(start * 30 - 1e-6)), last))
    with pytest.raises(VideoError, match=r"no frame from 5 seconds on; .* has 1\.20 seconds"):
        read_video(tmp_path / "x.mp4", start=5)


def test_variable_rate_shows_the_last_frame_before_each_instant(tmp_path):
    frames = numbered_frames(6)
    stamps = [0, 40, 80, 400, 440, 480]  # a pause of 320 ms
    write_raw(tmp_path / "x.mkv", frames, stamps=stamps, options={"bf": "0"})
    back, _ = read_video(tmp_path / "x.mkv", fps=25)
    assert numbers(back, frames)[:13] == [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 5]


def test_lost_frames_are_counted(tmp_path):
    stamps = [0, 1, 2, 3, 4, 1000, 2000]  # 3 or 4 frames per second
    write_raw(tmp_path / "x.mp4", numbered_frames(7), stamps=stamps, options={"bf": "0"})
    with VideoReader(tmp_path / "x.mp4") as reader:
        shown = {frame.tobytes() for frame in reader}
    assert reader.warning is not None
    assert f"{7 - len(shown)} of 7 frames are left out, as their times are damaged or too close" in reader.warning
    with VideoReader(tmp_path / "x.mp4", fps=1000, stop=0.1) as reader:
        assert len({frame.tobytes() for frame in reader}) == 5
    assert reader.warning is None


@pytest.mark.parametrize(
    ("box", "offset", "value"),
    [
        (b"stts", 16, 0),  # the duration of each frame
        (b"stts", 12, 3),  # the number of frames with that duration
        (b"ctts", 16, 2**20),  # the delay between decoding and display of some frames
        (b"ctts", 28, 2**31 - 1),
        (b"stsz", 12, 20),  # the number of frames
        (b"elst", 16, 4096),  # the time at which the display begins
    ],
)
def test_damaged_times_lose_no_frame_in_silence(tmp_path, box, offset, value):
    frames = numbered_frames(30, 32, 32)
    write_raw(tmp_path / "x.mp4", frames, options={"bf": "2", "g": "8"})
    data = bytearray((tmp_path / "x.mp4").read_bytes())
    place = data.index(box) + offset
    assert data[place : place + 4] != value.to_bytes(4, "big")
    data[place : place + 4] = value.to_bytes(4, "big")
    (tmp_path / "x.mp4").write_bytes(data)
    with VideoReader(tmp_path / "x.mp4", threads=1) as reader:
        shown = len(set(numbers(np.stack(list(reader)), frames)))
    said = re.search(r"\d+ of \d+ frames (could be decoded|are left out)", reader.warning or "")
    assert said or shown == 30  # some versions of FFmpeg repair some of the damage


def test_metadata_that_are_not_text(tmp_path):
    frames = numbered_frames(2)
    write_raw(tmp_path / "x.mkv", frames)
    data = (tmp_path / "x.mkv").read_bytes()
    (tmp_path / "x.mkv").write_bytes(data.replace(b"Lavf", b"\xff\xffvf"))
    assert len(read_video(tmp_path / "x.mkv")[0]) == 2


def test_gaps_of_hours_and_days_end(tmp_path):
    """Files of a constant rate are refused; where the rate is an average, each frame is shown once or twice."""
    for name, seconds, message in (
        ("hour.mp4", 3600, None),
        ("hour.mkv", 3600, "shown for 3600 seconds, .* choose a lower rate with --fps or a part"),
        ("days.mkv", 24 * 86400, "2073600 seconds, expected at most 86400; raise --max-duration"),
    ):
        write_raw(tmp_path / name, numbered_frames(2), stamps=[0, 1000 * seconds], options={"bf": "0"})
        refused = nullcontext() if message is None else pytest.raises(VideoError, match=message)
        with VideoReader(tmp_path / name) as reader, refused:
            assert len(list(reader)) < 4


def test_other_rates(tmp_path):
    frames = numbered_frames(30)
    write_raw(tmp_path / "x.mp4", frames)
    assert numbers(read_video(tmp_path / "x.mp4", fps=10)[0], frames) == list(range(0, 30, 3))
    assert numbers(read_video(tmp_path / "x.mp4", fps=60)[0], frames) == [i // 2 for i in range(60)]


def write_gif(path, frames, delays):
    """Write a GIF, with delays in milliseconds."""
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=delays, loop=0)


def test_delays_of_a_gif_become_times(tmp_path):
    frames = numbered_frames(5)
    write_gif(tmp_path / "x.gif", frames, [100, 300, 200, 100, 250])
    back, rate = read_video(tmp_path / "x.gif")
    assert rate == 10
    assert numbers(back, frames) == [0, 1, 1, 1, 2, 2, 3, 4, 4, 4]
    info = probe(tmp_path / "x.gif")
    assert (info.frames, info.duration) == (10, 0.95)
    assert numbers(read_video(tmp_path / "x.gif", start=0.3, stop=0.6)[0], frames) == [1, 2, 2]
    assert numbers(read_video(tmp_path / "x.gif", fps=5)[0], frames) == [0, 1, 2, 3, 4]
    write_gif(tmp_path / "uneven.gif", frames, [30, 40, 30, 40, 30])  # no frame is lost
    back, rate = read_video(tmp_path / "uneven.gif")
    assert rate == Fraction(100, 3)
    assert sorted(set(numbers(back, frames))) == [0, 1, 2, 3, 4]
    write_gif(tmp_path / "still.gif", frames[:1], 0)
    assert len(read_video(tmp_path / "still.gif")[0]) == 1


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mkv", "libx264", "yuv420p10le"),
        (".mkv", "ffv1", "gray"),
        (".mkv", "ffv1", "yuva420p"),
        (".mkv", "ffv1", "bgr0"),
        (".avi", "mjpeg", "yuvj420p"),
    ],
)
def test_pixel_formats(tmp_path, suffix, codec, pix_fmt):
    frames = numbered_frames(5)
    write_raw(tmp_path / f"x{suffix}", frames, codec=codec, pix_fmt=pix_fmt)
    back, _ = read_video(tmp_path / f"x{suffix}")
    expected = frames
    if pix_fmt == "gray":
        expected = (frames @ (0.299, 0.587, 0.114))[..., None].repeat(3, -1)
    assert back.shape == frames.shape
    assert difference(back, expected) < 4
    assert probe(tmp_path / f"x{suffix}").bit_depth == (10 if "10" in pix_fmt else 8)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(tmp_path, degrees):
    frames = numbered_frames(4)
    write_raw(tmp_path / "x.mp4", frames)
    rotate_display(tmp_path / "x.mp4", degrees)
    back, _ = read_video(tmp_path / "x.mp4")
    expected = np.rot90(frames, -degrees // 90, axes=(1, 2))
    assert back.shape == expected.shape
    assert difference(back, expected) < 3
    info = probe(tmp_path / "x.mp4")
    assert (info.height, info.width) == expected.shape[1:3]


def test_cut_off_video_gives_what_can_be_decoded(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8)
    write_raw(tmp_path / "x.mkv", frames, options={"g": "5", "bf": "0"})
    data = (tmp_path / "x.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    with VideoWriter(tmp_path / "x.mp4", 30) as writer:
        writer.write(frames)
    data = (tmp_path / "x.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 6 // 10])  # its index lies in front
    for name in ("cut.mkv", "cut.mp4"):
        with VideoReader(tmp_path / name) as reader:
            count = len(list(reader))
            assert 5 < count < 40, name
            if name == "cut.mp4":  # the other kind does not say how many frames there should be
                assert reader.warning is not None
                assert f"{count} of 40 frames" in reader.warning


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://example.org/a.mp4", "a URL, expected the path of a video file"),
        ("-", "standard input is not supported here"),
        ("missing.mp4", "no such file"),
        (".", "adaptok tokenize"),
    ],
)
def test_what_is_no_video_file_is_named(name, message):
    with pytest.raises(VideoError, match=message):
        probe(name)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_process_converts_frames(tmp_path):
    """The threads of a converter do not survive a fork, and waiting for them would never end."""
    write_raw(tmp_path / "x.mkv", numbered_frames(3, 192, 256))
    expected, _ = read_video(tmp_path / "x.mkv")
    with multiprocessing.get_context("fork").Pool(1) as pool:
        frames, _ = pool.apply_async(read_video, (tmp_path / "x.mkv",)).get(timeout=60)
    assert np.array_equal(frames, expected)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_process_does_not_free_the_decoders_of_its_parent(tmp_path):
    """Freeing a decoder waits for its threads, which do not survive a fork."""
    with VideoWriter(tmp_path / "x.mp4", 30) as writer:
        writer.write(numbered_frames(8))
    gc.disable()
    try:
        container = av.open(str(tmp_path / "x.mp4"))
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        next(container.decode(stream))
        cycle: list = [container, stream]
        cycle.append(cycle)
        del container, stream, cycle
        with multiprocessing.get_context("fork").Pool(1) as pool:
            pool.apply_async(gc.collect).get(timeout=60)
    finally:
        gc.enable()
