"""Folders: mirrored outputs, failures at the end, nothing done twice; and the sound of videos on the way."""

from __future__ import annotations

import json

import pytest

from adaptok.cli.main import main
from adaptok.codec.token_file import VideoTokens
from adaptok.video.reading import probe
from tests.helpers.videos import write_sounding_video, write_video


@pytest.fixture
def run(codec, tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; return the exit code, standard output as JSON, and standard error."""
    codec.save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = 0
        try:
            main([*map(str, arguments), "--model", "model", "--device", "cpu", "--json", "--quiet"])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return run


def test_folders_are_encoded_in_full_once(run, tmp_path):
    for name in ("a.mp4", "b/c.mp4", "b/c.mkv", "b/d/e.mp4"):
        write_video(tmp_path / "videos" / name, 5)
    (tmp_path / "videos/broken.mp4").write_text("not a video")
    (tmp_path / "videos/b/empty.mp4").touch()
    (tmp_path / "videos/notes.txt").touch()
    code, document, err = run("encode", "videos", "-o", "tokens", "--budget", 16, "--workers", 3)
    assert (code, document["done"], document["skipped"], document["failed"]) == (1, 4, 0, 2)
    assert [failure["input"] for failure in document["failures"]] == ["videos/b/empty.mp4", "videos/broken.mp4"]
    assert len(err.splitlines()) == 2
    files = sorted(
        path.relative_to(tmp_path / "tokens").as_posix() for path in (tmp_path / "tokens").rglob("*.adaptok")
    )
    assert files == ["a.adaptok", "b/c.mkv.adaptok", "b/c.mp4.adaptok", "b/d/e.adaptok"]
    assert run("encode", "videos/a.mp4", "alone.adaptok", "--budget", 16)[0] == 0
    assert VideoTokens.load("alone.adaptok") == VideoTokens.load("tokens/a.adaptok")

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "tokens").rglob("*.adaptok")}
    code, document, _ = run("encode", "videos", "-o", "tokens", "--budget", 16, "--skip-existing")
    assert (code, document["done"], document["skipped"], document["failed"]) == (1, 0, 4, 2)
    assert {path: path.stat().st_mtime_ns for path in times} == times

    code, document, _ = run("decode", "tokens")
    assert (code, document["done"], document["out"]) == (0, 4, "tokens-decoded")
    assert probe(tmp_path / "tokens-decoded/b/c.mkv.mp4").frames == 5
    code, document, _ = run("reconstruct", "videos", "-o", "seen", "--budget", 16)
    assert (code, document["done"], document["failed"]) == (1, 4, 2)
    assert all(result["psnr"] > 0 for result in document["results"])
    assert probe(tmp_path / "seen/b/d/e.mp4").width == 64


def test_sound_is_remembered_and_copied(run, tmp_path):
    (tmp_path / "in").mkdir()
    write_sounding_video(tmp_path / "in/a.mp4")
    assert run("encode", "in/a.mp4", "a.adaptok", "--start", 0.5, "--stop", 1.0)[0] == 0
    info = VideoTokens.load("a.adaptok").info
    assert (info.audio.path, info.audio.start, info.fit) == ("in/a.mp4", 0.5, "tile")
    _, document, _ = run("decode", "a.adaptok", "copied.mp4")
    assert document["audio"] == "copied"
    assert probe("copied.mp4").audio
    _, document, _ = run("decode", "a.adaptok", "dropped.mp4", "--audio", "drop")
    assert not probe("dropped.mp4").audio
    assert run("reconstruct", "in/a.mp4", "again.mp4", "--stop", 0.5)[0] == 0
    assert probe("again.mp4").audio
    (tmp_path / "in/a.mp4").unlink()
    _, document, _ = run("decode", "a.adaptok", "gone.mp4")
    assert document["audio"] == "dropped"
    assert not probe("gone.mp4").audio


@pytest.mark.usefixtures("run")
def test_what_is_cropped_is_said(tmp_path, capsys):
    write_video(tmp_path / "wide.mp4", 2)
    main(["encode", "wide.mp4", "x.adaptok", "--fit", "crop", "--model", "model", "--device", "cpu"])
    assert "keeps 48x48 of 64x48 pixels" in capsys.readouterr().err
    assert VideoTokens.load("x.adaptok").info.geometry.loss == 0.25
