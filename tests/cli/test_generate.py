"""`adaptok generate` and `adaptok predict` through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adaptok.cli.main import main
from adaptok.video.reading import read_video
from adaptok.video.writing import VideoWriter

DATA = Path(__file__).parents[1] / "fixtures"
GENERATE = ["generate", "--generator", str(DATA / "generator"), "--model", str(DATA / "official"), "--device", "cpu"]
needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN")
PREDICT = ["--generator", str(DATA / "predictor"), "--model", str(DATA / "official"), "--device", "cpu"]


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "moving.mp4"
    with VideoWriter(path, 8) as writer:
        for t in range(20):
            frame = np.full((32, 48, 3), 40, np.uint8)
            frame[8:16, t : t + 8] = 200
            writer.write(frame)
    return path


def run(capsys, *arguments):
    main([*map(str, arguments), "--json", "--quiet"])
    return json.loads(capsys.readouterr().out)


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    captured = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert len(captured.splitlines()) == 1, captured
    return captured


def test_generate_resumes(capsys, tmp_path):
    whole = run(capsys, *GENERATE, "--label", "1", "3", "-n", 4, "--output", tmp_path / "a", "--budget", 20)
    assert whole["sampled"] == 4
    assert Path(whole["sheet"]).exists()
    frames, rate = read_video(whole["clips"][0])
    assert frames.shape == (16, 32, 32, 3)
    assert rate == 8
    part = tmp_path / "b"
    run(capsys, *GENERATE, "--label", "1", "3", "-n", 2, "--output", part, "--budget", 20, "--batch-size", 1)
    Path(part / "00001-3.mp4").unlink()
    rest = run(capsys, *GENERATE, "--label", "1", "3", "-n", 4, "--output", part, "--budget", 20)
    assert rest["sampled"] == 3
    for one, other in zip(whole["clips"], rest["clips"], strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()
    assert "another temperature" in error_of(
        capsys, *GENERATE, "--label", "1", "3", "--output", part, "--budget", "20", "--temperature", "0.5"
    )


@needs_onednn
def test_int8_weights(capsys, tmp_path):
    """Clips of other weights are not mixed, and folders of earlier versions hold those of float weights."""
    out = tmp_path / "a"
    clips = [*GENERATE, "--label", "1", "--number", 1, "--output", out, "--budget", 8]
    assert run(capsys, *clips, "--weights", "int8")["sampled"] == 1
    assert "holds clips of another weights ('int8', not 'float')" in error_of(capsys, *clips)
    settings = json.loads((out / "generate.json").read_text())
    del settings["weights"]
    (out / "generate.json").write_text(json.dumps(settings))
    assert run(capsys, *clips)["sampled"] == 0
    assert "cannot be compiled" in error_of(capsys, *clips, "--weights", "int8", "--compile")


def test_force_removes_the_clips_of_the_command_only(capsys, tmp_path):
    out = tmp_path / "out"
    first = [*GENERATE, "--label", "1", "2", "--output", out, "--budget", 8]
    run(capsys, *first, "-n", 3)
    settings = json.loads((out / "generate.json").read_text())
    own = {path.name for path in out.glob("*.mp4")}
    others = {"00042-my-holiday.mp4", "00001-4.mp4", "notes.txt"}
    for name in others:
        (out / name).write_text("mine")
    for text in (json.dumps({**settings, "classes": None}), "{"):  # as earlier versions wrote it, and damaged
        (out / "generate.json").write_text(text)
        (out / "00000-1.mp4").write_text("old")
        result = run(capsys, *first, "-n", 1, "--force")
        assert result["sampled"] == 1
        present = {path.name for path in out.iterdir()}
        assert others <= present
        assert (own & present == {"00000-1.mp4"}) or text == "{"
        (out / "00002-1.mp4").touch()
        (out / "generate.json").write_text("{")
        assert "generate.json: damaged" in error_of(capsys, *first, "-n", 1)
    assert all((out / name).read_text() == "mine" for name in others)


def test_predict(capsys, tmp_path, video):
    out, sheet = tmp_path / "out.mp4", tmp_path / "sheet.png"
    result = run(capsys, "predict", video, *PREDICT, "--output", out, "--side-by-side", "--sheet", sheet)
    assert read_video(out)[0].shape == (16, 32, 64, 3)
    assert sheet.exists()
    assert result["psnr"] > 0
    assert result["cond_frames"] == 5
    longer = run(capsys, "predict", video, *PREDICT, "--output", out, "--frames", 30, "--force")
    assert longer["frames"] == len(read_video(out)[0]) == 30


def test_mistakes(capsys, tmp_path, video):
    out = tmp_path / "out"
    assert "unknown label 'zebra'" in error_of(capsys, *GENERATE, "--label", "zebra", "--output", out)
    assert "label 9, expected 0 to 4" in error_of(capsys, *GENERATE, "--label", "9", "--output", out)
    assert "predicts frames and has no classes" in error_of(capsys, "generate", *PREDICT, "--output", out)
    assert "no such model folder" in error_of(capsys, "generate", "--generator", tmp_path / "x/y", "--output", out)
    assert "tokenizer model, expected a generator" in error_of(
        capsys, "generate", "--generator", DATA / "official", "--output", out
    )
    assert "give it with --model" in error_of(capsys, *GENERATE[:3], "--output", out)
    assert not out.exists()
    mp4 = tmp_path / "out.mp4"
    assert "20 frames, the condition needs 30" in error_of(
        capsys, "predict", video, *PREDICT, "--cond-frames", 30, "--frames", 40, "--output", mp4
    )
    assert "4 first frames, expected 5 to 8" in error_of(
        capsys, "predict", video, *PREDICT, "--cond-frames", 4, "--output", mp4
    )
    assert "predicts no frames" in error_of(capsys, "predict", video, *GENERATE[1:], "--output", mp4)
    assert not mp4.exists()


def test_info_knows_generators(capsys):
    described = run(capsys, "info", DATA / "predictor")
    assert described["kind"] == "generator"
    assert described["condition_ids"] == 64
