"""Video files made on the spot: what is read is what was shown."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame

from adaptok.video.container import VideoError
from adaptok.video.geometry import Geometry
from adaptok.video.reading import VideoReader, probe, read_video
from adaptok.video.writing import VideoWriter


def pictures(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frame i is smooth, and its mean brightness tells i."""
    y, x = np.mgrid[0:height, 0:width]
    shade = np.stack([x * 60 / width, y * 60 / height, (x + y) * 30 / (height + width)], -1)
    return np.stack([(shade + 10 + 4 * i).astype(np.uint8) for i in range(count)])


def write_raw(path, frames, *, pix_fmt="yuv420p", codec="libx264", stamps=None, rate=30, options=None):
    """A file with any pixel format and any time stamps (in milliseconds)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        stream.options = options or {}
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, frame in enumerate(frames):
            picture = VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = index, Fraction(1, rate)
            if stamps is not None:
                picture.pts, picture.time_base = stamps[index], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def numbers(frames: np.ndarray, reference: np.ndarray) -> list[int]:
    """Which of the reference's frames each frame is, by its mean brightness."""
    means = reference.mean((1, 2, 3))
    return [int(np.abs(means - frame.mean()).argmin()) for frame in frames]


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("size", [(48, 64), (37, 53), (1, 40), (16, 16)])
def test_round_trip_of_frames_and_colours(tmp_path, size):
    frames = pictures(20, *size)
    frames[:, : size[0] // 2] = frames[:, : size[0] // 2] * (1.0, 0.5, 0.1)
    with VideoWriter(tmp_path / "x.mp4", 30, crf=4) as writer:
        writer.write(frames)
    back, rate = read_video(tmp_path / "x.mp4")
    assert rate == 30
    back = back[:, : size[0], : size[1]]
    assert back.shape == frames.shape
    assert difference(back, frames) < 2.5


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25), Fraction(7)])
def test_constant_rate_gives_each_frame_once(tmp_path, rate):
    frames = pictures(30)
    with VideoWriter(tmp_path / "x.mp4", rate) as writer:
        writer.write(frames)
    back, found = read_video(tmp_path / "x.mp4")
    assert found == rate
    assert numbers(back, frames) == list(range(30))


def test_seeking_gives_the_slice(tmp_path):
    frames = pictures(36)
    write_raw(tmp_path / "x.mp4", frames, options={"g": "8", "bf": "2"})
    for start, stop in ((0.0, 0.5), (0.3, 0.8), (0.7, None), (1.16, 9.0)):
        part, _ = read_video(tmp_path / "x.mp4", start=start, stop=stop)
        last = 36 if stop is None else min(36, round(stop * 30))
        assert numbers(part, frames) == list(range(int(np.ceil(start * 30 - 1e-6)), last))
    with pytest.raises(VideoError, match=r"no frame from 5 seconds on; .* has 1\.20 seconds"):
        read_video(tmp_path / "x.mp4", start=5)


def test_variable_rate_shows_the_last_frame_before_each_instant(tmp_path):
    frames = pictures(6)
    stamps = [0, 40, 80, 400, 440, 480]  # a pause of 320 ms
    write_raw(tmp_path / "x.mkv", frames, stamps=stamps, options={"bf": "0"})
    back, _ = read_video(tmp_path / "x.mkv", fps=25)
    assert numbers(back, frames)[:13] == [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 5]


def test_other_rates(tmp_path):
    frames = pictures(30)
    write_raw(tmp_path / "x.mp4", frames)
    assert numbers(read_video(tmp_path / "x.mp4", fps=10)[0], frames) == list(range(0, 30, 3))
    assert numbers(read_video(tmp_path / "x.mp4", fps=60)[0], frames) == [i // 2 for i in range(60)]


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
    frames = pictures(5)
    write_raw(tmp_path / f"x{suffix}", frames, codec=codec, pix_fmt=pix_fmt)
    back, _ = read_video(tmp_path / f"x{suffix}")
    expected = frames
    if pix_fmt == "gray":
        expected = (frames @ (0.299, 0.587, 0.114))[..., None].repeat(3, -1)
    assert back.shape == frames.shape
    assert difference(back, expected) < 4
    assert probe(tmp_path / f"x{suffix}").bit_depth == (10 if "10" in pix_fmt else 8)


def rotated(path, degrees: int) -> None:
    """Give the only track of an MP4 a display matrix that turns it clockwise."""
    data = bytearray(path.read_bytes())
    place = data.rindex(b"tkhd") + 4 + 40  # version 0: the matrix lies 40 bytes into the box
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    for index, value in enumerate((cos, sin, 0, -sin, cos)):
        data[place + 4 * index : place + 4 * index + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_is_applied(tmp_path, degrees):
    frames = pictures(4)
    write_raw(tmp_path / "x.mp4", frames)
    rotated(tmp_path / "x.mp4", degrees)
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


def test_nothing_is_left_after_an_error(tmp_path):
    def fail() -> None:
        with VideoWriter(tmp_path / "x.mp4", 30) as writer:
            writer.write(pictures(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with pytest.raises(VideoError, match="no frames"), VideoWriter(tmp_path / "x.mp4", 30):
        pass
    with pytest.raises(VideoError, match="expected a suffix"):
        VideoWriter(tmp_path / "x.gif", 30)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [(90, 160), (160, 90), (5, 300), (1, 7)])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_fit_is_undone(fit, size):
    height, width = size
    frames = pictures(2, height, width)
    geometry = Geometry(fit, width, height, 128)
    square = geometry.apply(frames)
    assert square.shape == (3, 2, 128, 128)
    assert 0 <= square.min() <= square.max() <= 1
    back = geometry.invert(square)
    top, left, rows, columns = geometry.region
    seen = np.zeros(size, bool)
    seen[top : top + rows, left : left + columns] = True
    assert (back[:, ~seen] == 0).all()
    assert difference(back[:, seen], frames[:, seen]) < 4


def test_fit_sees_what_it_says():
    frames = np.zeros((1, 90, 160, 3), np.uint8)
    frames[:, :, 35:125] = 255  # the middle square
    assert Geometry("crop", 160, 90, 128).apply(frames).min() == 1
    padded = Geometry("pad", 160, 90, 128).apply(frames)
    row, column, rows, columns = Geometry("pad", 160, 90, 128).window
    assert (rows, columns) == (72, 128)
    assert torch.equal(padded[:, :, :row], torch.zeros_like(padded[:, :, :row]))
    assert abs(float(padded[0, 0, 64].mean()) - 90 / 160) < 0.02
    assert column == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://example.org/a.mp4", "URLs are not supported; download"),
        ("-", "standard input is not supported"),
        ("missing.mp4", "no such file"),
        (".", "adaptok tokenize"),
    ],
)
def test_what_is_no_video_file_is_named(name, message):
    with pytest.raises(VideoError, match=message):
        probe(name)
