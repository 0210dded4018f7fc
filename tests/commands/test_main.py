"""The command line: the main path, and bad input in one line with exit code 2."""

from __future__ import annotations

import json

import numpy as np
import pytest

from adaptok.commands.main import main
from adaptok.video.reading import probe, read_video
from adaptok.video.writing import VideoWriter


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "in.mp4"
    ramp = np.arange(64, dtype=np.uint8) * 3
    with VideoWriter(path, 30) as writer:
        for index in range(10):
            writer.write(np.broadcast_to(np.roll(ramp, index)[None, :, None], (48, 64, 3)).copy())
    return path


@pytest.fixture
def model(codec, tmp_path):
    codec.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def run(*arguments) -> int:
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_encode_decode_reconstruct(video, model, tmp_path, capsys):
    tokens, back = tmp_path / "x.adaptok", tmp_path / "back.mp4"
    assert run("encode", video, tokens, "--model", model, "--budget", 16, "--device", "cpu") == 0
    assert run("decode", tokens, back, "--model", model, "--device", "cpu") == 0
    assert probe(back).width == 64
    assert len(read_video(back)[0]) == 10
    capsys.readouterr()
    plot = tmp_path / "plot.png"
    assert (
        run(
            "reconstruct",
            video,
            tmp_path / "out.mp4",
            "--model",
            model,
            "--budget",
            12,
            "--budget",
            20,
            "--json",
            "--side-by-side",
            "--plot",
            plot,
            "--device",
            "cpu",
        )
        == 0
    )
    results = json.loads(capsys.readouterr().out)["results"]
    assert [sum(result["lengths"]) == result["tokens"] for result in results] == [True, True]
    assert {"psnr", "ssim", "tokens", "tokens_per_second", "bits", "clips", "lengths"} <= results[0].keys()
    assert plot.exists()
    assert (tmp_path / "out-12.mp4").exists()
    assert run("encode", video, tokens, "--model", model) == 2  # exists


def bad_inputs(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video")
    return [tmp_path / "none.mp4", tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path]


def test_bad_input_is_one_line(video, model, tmp_path, capsys):
    out = tmp_path / "never.adaptok"
    for path in bad_inputs(tmp_path):
        assert run("encode", path, out, "--model", model, "--budget", 16) == 2
        assert_one_line(capsys, out)
    for budget in ("0", "-3", "1e9", "nan", "many"):
        assert run("encode", video, out, "--model", model, f"--budget={budget}") == 2
        assert_one_line(capsys, out)
    for arguments in (["--nonsense"], ["--device", "abacus"], ["--model", tmp_path / "no-model"]):
        assert run("encode", video, out, "--budget", 16, *arguments) == 2
        assert_one_line(capsys, out)
    assert run("encode", video, tmp_path / "no" / "folder.adaptok", "--model", model) == 2
    assert_one_line(capsys, out)


def assert_one_line(capsys, out):
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip() and "frames" not in line[:60]]
    assert captured.out == ""
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    assert not out.exists()
