"""Commands on folders of frames, GIF, URLs and standard input."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from adaptok.cli.main import main
from adaptok.codec.token_file import VideoTokens
from adaptok.video.reading import probe
from tests.helpers.raw_videos import numbered_frames, y4m
from tests.helpers.servers import serve
from tests.helpers.videos import write_sounding_video, write_video

FRAMES = numbered_frames(10)


@pytest.fixture
def run(codec, tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; return the exit code, standard output as JSON, and standard error."""
    codec.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = 0
        try:
            main([*map(str, arguments), "--model", "model", "--device", "cpu", "--json"])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return run


@pytest.fixture
def send(monkeypatch):
    """Put bytes on standard input, which then cannot be sought in."""

    def send(data):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False))

    return send


def write_frames(folder, frames):
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index}.png")


pytestmark = pytest.mark.parametrize("codec", [False], indirect=True)


def test_a_folder_of_frames_is_one_video(run, codec, tmp_path):
    write_frames(tmp_path / "walk.v2", FRAMES)
    code, document, err = run("encode", "walk.v2", "--budget", 16, "--fit", "crop", "--fps", 12)
    assert (code, document["out"], document["frames"], document["rate"]) == (0, "walk.v2.adaptok", 10, "12/1")
    assert "10 images, read as the frames of 1 video at 12 per second\n" in err
    assert VideoTokens.load("walk.v2.adaptok") == codec.encode(FRAMES, 16, fps=12)
    code, document, err = run("reconstruct", "walk.v2", "seen.mp4", "--stop", 0.2)
    assert (code, document["frames"], probe("seen.mp4").frames) == (0, 6, 6)
    assert "at 30 per second (--fps sets another rate)" in err


def test_a_folder_of_folders_of_frames(run, tmp_path):
    write_frames(tmp_path / "all/a", FRAMES[:3])
    write_frames(tmp_path / "all/b/c.d", FRAMES[:2])
    write_frames(tmp_path / "all/broken", FRAMES[:2])
    Image.new("RGB", (9, 9)).save(tmp_path / "all/broken/9.png")
    code, document, err = run("encode", "all", "-o", "tokens", "--workers", 2)
    assert (code, document["done"], document["failed"]) == (1, 2, 1)
    assert [result["out"] for result in document["results"]] == ["tokens/a.adaptok", "tokens/b/c.d.adaptok"]
    assert "9x9 pixels, expected 64x48" in document["failures"][0]["error"]
    assert "8 images, read as the frames of 3 videos" in err
    assert run("reconstruct", "all/b", "-o", "seen")[1]["done"] == 1
    assert probe("seen/c.d.mp4").frames == 2
    write_video(tmp_path / "all/clip.mp4", 3)
    Image.fromarray(FRAMES[0]).save(tmp_path / "all/clip.jpg")
    code, document, err = run("encode", "all", "-o", "more")
    assert (code, document["done"]) == (0, 1)
    assert "9 images are ignored, as there are video files" in err


def test_gif(run, tmp_path):
    (tmp_path / "all").mkdir()
    images = [Image.fromarray(frame) for frame in FRAMES[:3]]
    images[0].save(tmp_path / "all/x.gif", save_all=True, append_images=images[1:], duration=[100, 200, 100])
    assert run("encode", "all")[1]["results"][0]["frames"] == 4
    code, document, _ = run("encode", "all/x.gif")
    assert (code, document["frames"], document["rate"]) == (0, 4, "10/1")


def test_a_url(run, tmp_path):
    (tmp_path / "site").mkdir()
    write_sounding_video(tmp_path / "site/a clip.mp4")

    with serve(tmp_path / "site") as address:
        url = f"{address}/a%20clip.mp4?v=1"
        code, document, err = run("encode", url, "--allow-url", "--fit", "crop")
        assert (code, document["out"], document["frames"]) == (0, "a clip.adaptok", 20)
        assert document["audio"] is None
        assert "the sound is dropped" in err
        code, document, _ = run("reconstruct", url, "seen.mp4", "--allow-url", "--stop", 1, "--fit", "crop")
        assert (code, document["frames"], probe("seen.mp4").audio) == (0, 10, True)
        code, document, err = run("encode", url.replace("clip", "film"), "x.adaptok", "--allow-url")
        assert (code, document) == (2, None)
        assert "404" in err


def test_standard_input_is_encoded_as_a_stream(run, send, tmp_path):
    (tmp_path / "x.y4m").write_bytes(y4m(FRAMES))
    send(y4m(FRAMES))
    code, document, _ = run("encode", "-", "piped.adaptok", "--stream", "--budget", 16)
    assert (code, document["frames"], document["rate"], document["fit"]) == (0, 10, "30000/1001", "tile")
    assert run("encode", "x.y4m", "file.adaptok", "--stream", "--budget", 16)[0] == 0
    assert VideoTokens.load("piped.adaptok") == VideoTokens.load("file.adaptok")
    send(FRAMES.tobytes())
    raw = ["--stream", "--input-format", "rgb24", "--input-size", "64x48", "--fps", 12, "--fit", "crop"]
    code, document, _ = run("encode", "-", "raw.adaptok", *raw)
    assert (code, document["frames"], document["rate"], document["width"]) == (0, 10, "12/1", 64)


def test_what_came_before_damage_is_kept(run, send, tmp_path):
    send(y4m(FRAMES)[:-1])
    code, document, err = run("encode", "-", "cut.adaptok", "--stream", "--budget", 16)
    assert (code, document["frames"], VideoTokens.load("cut.adaptok").info.frames) == (2, 9, 9)
    assert "adaptok: error: standard input: frame 10 of 64x48 pixels has" in err
    assert "the 9 frames before it are used, and their tokens are in cut.adaptok" in err
    for data, message in ((b"", "empty"), (b"\0" * 99, "expected y4m"), (y4m(FRAMES[:1])[:-1], "frame 1 of 64x48")):
        send(data)
        code, document, err = run("encode", "-", "never.adaptok", "--stream", "--budget", 16)
        assert (code, document) == (2, None)
        assert len(err.splitlines()) == 1
        assert message in err
    assert not (tmp_path / "never.adaptok").exists()


def test_frames_are_not_held(codec):
    """Frames are read as clips are encoded, not before."""
    from adaptok.video.sources import open_stream

    class Endless(io.RawIOBase):
        """Black frames, which note how many of them were read."""

        read_frames = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = bytes(len(buffer))
            self.read_frames += len(buffer) / (64 * 48 * 3)
            return len(buffer)

    stream = Endless()
    counts = []
    codec.encode(
        open_stream(stream, "rgb24", size=(64, 48), fps=30, stop=1.0),
        16,
        "stream",
        progress=lambda count: counts.append((count, stream.read_frames)),
    )
    done = np.cumsum([count for count, _ in counts])
    assert done[-1] == 30
    assert max(np.array([read for _, read in counts]) - done) <= 2
