"""Lists of PIL images, and folders of frames."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from adaptok.video.folders import is_frame_folder, list_videos
from adaptok.video.sources import count_frames, open_frames
from tests.helpers.raw_videos import numbered_frames
from tests.helpers.videos import write_video

FRAMES = numbered_frames(12)


@pytest.fixture
def folder(tmp_path):
    """Frames whose natural order is not that of their characters, and a file of another kind."""
    path = tmp_path / "walk.v2"
    path.mkdir()
    for index, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(path / f"Frame{index}.{'PNG' if index % 2 else 'bmp'}")
    (path / ".hidden.png").touch()
    (path / "notes.txt").touch()
    return path


def read(video, **options):
    with open_frames(video, **options) as source:
        return np.stack(list(source.frames)), source


def test_images_are_frames():
    images = [Image.fromarray(frame) for frame in FRAMES]
    frames, source = read(images, fps=12, start=0.25, stop=0.5)
    assert np.array_equal(frames, FRAMES[3:6])
    assert (source.width, source.height, source.fps, source.total) == (64, 48, 12, 3)
    alpha, gray = images[0].convert("RGBA"), images[0].convert("L")
    alpha.putalpha(7)
    frames, _ = read((alpha, gray))
    assert np.array_equal(frames[0], FRAMES[0])
    assert np.array_equal(frames[1], np.asarray(gray)[..., None].repeat(3, -1))


def test_a_folder_of_frames_is_read_in_natural_order(folder):
    assert is_frame_folder(folder)
    frames, source = read(folder)
    assert np.array_equal(frames, FRAMES)
    assert (source.width, source.height, source.fps, source.total) == (64, 48, 30, 12)
    assert count_frames(str(folder), start=0.5, fps=12) == 6


def test_frames_are_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise by 90 degrees for display
    Image.fromarray(FRAMES[0]).save(tmp_path / "1.png", exif=exif)
    assert np.array_equal(read(tmp_path)[0], np.rot90(FRAMES[0], -1)[None])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([Image.new("RGB", (8, 6)), Image.new("RGB", (8, 7))], "image 1: 8x7 pixels, expected 8x6 as in the first"),
        ([Image.new("I;16", (8, 6))], "image 0: an image of mode I;16, expected 8 bits per channel"),
        ([], "of type list of 0 values, expected a path"),
        ([np.zeros((8, 6, 3), np.uint8)], "np.stack joins a list of arrays"),
    ],
)
def test_bad_lists(images, message):
    with pytest.raises(ValueError, match=message):
        read(images)


def test_bad_frames_are_named(folder):
    Image.new("RGB", (10, 10)).save(folder / "Frame5.PNG")
    with pytest.raises(ValueError, match=r"Frame5\.PNG: 10x10 pixels, expected 64x48 as in the first frame; bring all"):
        read(folder)
    whole = (folder / "Frame7.PNG").read_bytes()
    (folder / "Frame5.PNG").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"Frame5\.PNG: cannot be read"):
        read(folder)
    (folder / "Frame5.PNG").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n"
    )  # not for PIL's EPS reader
    with pytest.raises(ValueError, match=r"Frame5\.PNG: not an image that can be read, expected one of JPEG, PNG"):
        read(folder)


def test_the_content_decides_what_a_folder_is(folder, tmp_path):
    assert not is_frame_folder(tmp_path)
    assert list_videos(tmp_path) == [folder]
    with pytest.raises(ValueError, match="a folder that is not the frames of one video"):
        read(tmp_path)
    Image.fromarray(FRAMES[0]).save(tmp_path / "1.png")
    with pytest.raises(ValueError, match=r"images such as 1\.png and sub-folders with images such as walk\.v2/Frame0"):
        is_frame_folder(tmp_path)
    write_video(folder / "clip.mp4", 2)  # images beside videos are thumbnails
    assert not is_frame_folder(folder)
    assert list_videos(tmp_path) == [folder / "clip.mp4"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: neither videos \(\.avi, .* nor frames \(\.bmp, "):
        list_videos(tmp_path / "empty")
