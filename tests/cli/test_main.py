"""The command line: the main path, and bad input in one line with exit code 2."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from adaptok.checkpoints.model_folder import write_folder
from adaptok.cli.main import main
from adaptok.models.model import Model
from adaptok.video.reading import probe, read_video
from adaptok.video.writing import VideoWriter
from tests.helpers.models import small_config


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


def test_uniform_and_adaptive_lengths_of_one_budget(video, model, tmp_path, capsys):
    options = ["--model", model, "--budget", 16, "--json", "--device", "cpu"]
    compared = [tmp_path / "compared.mp4", "--compare-uniform", "--side-by-side", "--plot", tmp_path / "compared.png"]
    assert run("reconstruct", video, *compared, *options) == 0
    actual = json.loads(capsys.readouterr().out)
    assert run("reconstruct", video, tmp_path / "alone.mp4", "--side-by-side", *options) == 0
    adaptive = json.loads(capsys.readouterr().out)
    assert run("reconstruct", video, "--uniform", *options) == 0
    uniform = json.loads(capsys.readouterr().out)
    for name in ("psnr", "tokens", "lengths", "actual"):
        assert actual[name] == pytest.approx(adaptive[name])
        assert actual["uniform"][name] == pytest.approx(uniform[name])
    assert (tmp_path / "compared.png").exists()
    widths = [probe(tmp_path / f"{name}.mp4").width for name in ("compared", "alone")]
    assert 1.4 < widths[0] / widths[1] < 1.6  # three panels instead of two
    for wrong in (["--uniform"], ["--scope", "stream"], ["--target", 0.1]):
        assert run("reconstruct", video, "--compare-uniform", *wrong, *options) == 2
        assert "--compare-uniform" in capsys.readouterr().err
    tokenizer = without_scorer(tmp_path)
    for budgets in (["--budget", 16], ["--budget", "12,20"]):
        arguments = ["--compare-uniform", *budgets, "--model", tokenizer, "--device", "cpu"]
        assert run("reconstruct", video, *arguments) == 2
        assert "has no scorer; give --uniform" in capsys.readouterr().err


def without_scorer(tmp_path):
    """Model folder of a tokenizer alone."""
    write_folder(Model(small_config().model_copy(update={"scorer": None})), tmp_path / "tokenizer")
    return tmp_path / "tokenizer"


def write_sound(path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


def bad_inputs(tmp_path, video):
    """Files that hold no video, for different reasons."""
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("not a video")
    write_sound(folder / "sound.mp4")
    data = bytearray(video.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)  # its index lies in front and is whole
    (folder / "blank.mp4").write_bytes(bytes(data))
    return [folder / "none.mp4", folder, *folder.iterdir()]


def test_bad_input_is_one_line(video, model, tmp_path, capsys):
    out = tmp_path / "never.adaptok"
    for path in bad_inputs(tmp_path, video):
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


def test_bad_token_files_are_one_line(video, model, codec, tmp_path, capsys):
    tokens, out = tmp_path / "x.adaptok", tmp_path / "never.mp4"
    assert run("encode", video, tokens, "--model", model, "--budget", 16, "--fit", "crop", "--quiet") == 0
    data = tokens.read_bytes()
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "cut").write_bytes(data[: len(data) // 2])
    (bad / "flipped").write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    (bad / "version").write_bytes(data.replace(b'\\"version\\":1', b'\\"version\\":9', 1))
    (bad / "empty").touch()
    save_file({"weight": np.zeros(3, np.float32)}, bad / "foreign")
    capsys.readouterr()
    for path in [*bad.iterdir(), bad, tmp_path / "none"]:
        assert run("decode", path, out, "--model", model) == 2, path
        assert_one_line(capsys, out)
    assert run("decode", bad / "version", out, "--model", model) == 2
    assert "version 9" in capsys.readouterr().err
    with torch.no_grad():
        codec.model.tokenizer.encoder_queries.add_(1)
    codec.save_pretrained(tmp_path / "other")
    assert run("decode", tokens, out, "--model", tmp_path / "other") == 2
    assert_one_line(capsys, out)
    assert run("decode", tokens, out, "--model", tmp_path / "other", "--any-model", "--quiet") == 0


def test_unwritable_output(video, model, tmp_path, capsys):
    (tmp_path / "folder.adaptok").mkdir()
    for out in (tmp_path / "folder.adaptok", tmp_path / "no" / "x.adaptok", "/proc/x.adaptok", video / "x.adaptok"):
        assert run("encode", video, out, "--model", model, "--force") == 2
        assert_one_line(capsys, tmp_path / "no")
    assert run("encode", video, video, "--model", model, "--force") == 2
    assert_one_line(capsys, tmp_path / "no")


@pytest.mark.parametrize(("count", "height", "width"), [(1, 48, 64), (3, 37, 53), (2, 1, 40), (2, 16, 5000)])
def test_odd_videos(model, tmp_path, count, height, width):
    frames = np.zeros((count, height, width, 3), np.uint8)
    with av.open(str(tmp_path / "odd.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")))
        container.mux(stream.encode())
    out = tmp_path / "out.mp4"
    assert run("reconstruct", tmp_path / "odd.mkv", out, "--model", model, "--budget", 16, "--quiet") == 0
    assert len(read_video(out)[0]) == count
    assert probe(out).width == max(16, width + width % 2)


def test_cut_off_video_warns(model, tmp_path, capsys):
    path, out = tmp_path / "cut.mp4", tmp_path / "x.adaptok"
    with VideoWriter(path, 30) as writer:
        writer.write(np.random.default_rng(0).integers(0, 256, (40, 48, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert run("encode", path, out, "--model", model, "--budget", 16, "--json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert 0 < result["frames"] < 40
    assert f"{result['frames']} of 40 frames" in result["warning"]
    assert "warning" in captured.err


@pytest.mark.parametrize("codec", [False], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_work_leaves_nothing(model, tmp_path, number):
    video, out = tmp_path / "long.mp4", tmp_path / "out" / "back.mp4"
    with VideoWriter(video, 30) as writer:
        for index in range(2000):
            writer.write(np.full((48, 64, 3), index % 250, np.uint8))
    out.parent.mkdir()
    command = [sys.executable, "-m", "adaptok", "reconstruct", video, out, "--model", model, "--device", "cpu"]
    process = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
    while not list(out.parent.glob(".*.mp4")) and process.poll() is None:  # until it writes
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert list(out.parent.iterdir()) == []


def assert_one_line(capsys, out):
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip() and "frames" not in line[:60]]
    assert captured.out == ""
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    assert not out.exists()


@pytest.mark.parametrize("codec", [False], indirect=True)
@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--start", "1e18", "start 1e+18 and stop None seconds, expected a start of at least 0"),
        ("--stop", "inf", "start 0.0 and stop inf seconds, expected a start of at least 0 and a later stop"),
        ("--stop", "nan", "a later stop"),
        ("--stop", "1e300", None),
        ("--device", "meta", "device 'meta' is not available here; expected auto, cpu"),
    ],
)
def test_extreme_values(video, model, tmp_path, capsys, flag, value, message):
    device = [] if flag == "--device" else ["--device", "cpu"]
    code = run("encode", video, tmp_path / "x.adaptok", "--model", model, flag, value, *device, "--quiet")
    error = capsys.readouterr().err
    assert code == (2 if message else 0), error
    assert (message or "") in error
    assert error.count("\n") == (1 if message else 0)
    assert [path.name for path in tmp_path.iterdir() if path.name[0] == "."] == []


@pytest.mark.parametrize("codec", [False], indirect=True)
def test_names_that_begin_with_a_hyphen_and_long_ones(video, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-dash", "x" * 245):  # with their suffixes, the longest name of a token file has 253 bytes
        video.with_name(f"{name}.mp4").write_bytes(video.read_bytes())
        options = ["--model", model, "--device", "cpu", "--quiet"]
        assert run("encode", *options, "--", f"{name}.mp4") == 0
        assert run("decode", *options, "--force", "--", f"{name}.adaptok", f"{name}.mp4") == 0
        assert run("info", "--quiet", "--", f"{name}.adaptok") == 0


def test_metadata_cannot_control_the_terminal(tmp_path, capsys):
    path = tmp_path / "\x1b[31mred\x07.adaptok"
    path.write_bytes(b"no tokens")
    assert run("info", path) == 2
    with av.open(str(tmp_path / "x.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width = stream.height = 32
        stream.metadata["language"] = container.metadata["title"] = "\x1b]0;title\x07"
        for packet in stream.encode(av.VideoFrame(32, 32, "yuv420p")):
            container.mux(packet)
        container.mux(stream.encode())
    assert run("info", tmp_path / "x.mkv") == 0
    captured = capsys.readouterr()
    assert "\\x1b[31mred\\x07.adaptok" in captured.err
    assert "\x1b" not in captured.out + captured.err
