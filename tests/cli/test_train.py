"""Training from the command line: broken files are passed by and named, also those that vanish while it reads."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest
import yaml

from adaptok import AdapTok
from adaptok.cli.main import main
from adaptok.data.manifests import read_manifest
from tests.helpers.training import config
from tests.helpers.videos import write_video


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        for index in range(20):
            samples = np.zeros((1, 1024), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48000, index * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture
def folder(tmp_path):
    """76 videos and 4 files that are none: one in twenty."""
    videos = tmp_path / "videos"
    write_video(videos / "0.mp4", 20)
    whole = (videos / "0.mp4").read_bytes()
    for index in range(1, 76):
        (videos / f"{index}.mp4").write_bytes(whole)
    write_sound(videos / "sound.mp4")
    (videos / "zero.avi").touch()
    (videos / "text.mov").write_text("not a video")
    (videos / "cut.mp4").write_bytes(whole[:200])
    return videos


def flags(tmp_path, out, *more):
    options = config(tmp_path, "tokenizer", trackers=[], max_steps=6, data={"workers": 2}).model_dump(mode="json")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(options))
    run = ["train", "tokenizer", "--config", str(tmp_path / "run.yaml"), "--output", str(tmp_path / out)]
    return [*run, "--quiet", "--json", *more]


def test_broken_files_are_passed_by_and_named(folder, tmp_path, capsys):
    main(flags(tmp_path, "run", "--data.train", str(folder)))
    summary = json.loads(capsys.readouterr().out)
    expected = {str(folder / name) for name in ("sound.mp4", "zero.avi", "text.mov", "cut.mp4")}
    assert summary["broken"].keys() == expected
    assert json.loads((tmp_path / "run" / "broken.json").read_text()).keys() == expected
    AdapTok.from_pretrained(summary["model"], device="cpu")
    with pytest.raises(SystemExit, match="2"):
        main(flags(tmp_path, "strict", "--data.train", str(folder), "--data.max-broken-fraction", "0.04"))
    assert "4 of 80 files cannot be read, more than data.max_broken_fraction 0.04 allows" in capsys.readouterr().err


def test_one_folder_of_videos_is_enough(tmp_path, monkeypatch, capsys):
    """Presets name no data of their own, and the bundled models are known by name."""
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "videos" / "0.mp4", 20)
    for stage, *more in (
        ["tokenizer"],
        ["tokenizer", "--initial", "adaptok-tiny"],
        ["scorer", "--initial", "adaptok-tiny"],
    ):
        main(["train", stage, "--data.train", "videos", *more, "--dry-run"])
        text = capsys.readouterr().out
        assert "1 readable files, 0 unreadable; no validation" in text
        assert text.endswith("Ready to start.\n")
    flags = ["train", "tokenizer", "--initial", "adaptok-tiny", "--data.train", "videos", "--dry-run", "--json"]
    main([*flags, "--processes", "2"])
    document = json.loads(capsys.readouterr().out)
    assert document["configuration"]["model"]["name"] == "adaptok-tiny-finetuned"
    assert document["configuration"]["model"]["scorer"] is not None
    assert (document["processes"], document["micro_batch_size"], document["missing"]) == (2, 2, [])
    main(["train", "scorer", "--dry-run"])
    text = capsys.readouterr().out
    assert "Not ready to start:\n- data.train is empty" in text
    assert "- initial runs/tiny-tokenizer/model: no such model folder" in text
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--initial", "nowhere"], "nowhere: no such model folder"),
        (["--data.train", "nowhere"], "nowhere: no such folder or list of files"),
        (["--lpips-weights", "nowhere", "--losses.lpips.weight", "1"], "nowhere: no such file"),
        (["--trackers", "wandb"], "trackers wandb needs wandb"),
        (["--processes", "3"], "batch_size 4 is not a multiple of processes 3"),
        (["--output", "file"], "file: a file, expected a folder"),
    ],
)
def test_dry_runs_refuse_what_a_start_would(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main(["train", "tokenizer", "--dry-run", *flags])
    assert message in capsys.readouterr().err


def test_finished_runs_say_so_and_can_become_longer(tmp_path, capsys):
    write_video(tmp_path / "videos" / "0.mp4", 20)

    def run(*more):
        data = ["--data.train", str(tmp_path / "videos"), "--data.workers", "0", "--losses.adversarial", "0"]
        main([flag for flag in flags(tmp_path, "run", *data, *more) if flag not in ("--quiet", "--json")])
        return capsys.readouterr().err

    text = run("--max-steps", "1")
    assert text.startswith(f"Preparing the tokenizer run in {tmp_path / 'run'} ...\nStarting: 1 steps of 2 clips")
    assert "step 1/1, loss" in text
    assert f"model: {tmp_path / 'run' / 'model'}\nnext: adaptok train scorer --initial" in text
    assert "The run is finished (1 of 1 steps); its model is in" in run("--max-steps", "1")
    with pytest.raises(SystemExit, match="2"):
        run("--max-steps", "1", "--optimizer.lr", "1e-2")
    assert "optimizer.lr is 0.0003 there and 0.01 here" in capsys.readouterr().err
    text = run("--max-steps", "2")
    assert "Resuming after step 1: 2 steps" in text
    assert "finished: 2 steps" in text
    with pytest.raises(SystemExit, match="2"):
        run("--max-steps", "1", "--dry-run")
    assert "holds a run of 2 steps, but 1 are configured" in capsys.readouterr().err


def test_files_that_vanish_are_named_by_whoever_reads_them(folder, tmp_path, capsys):
    main(["data", "index", str(folder), "--quiet"])
    readable = [entry.path for entry in read_manifest(folder / "index.parquet") if entry.error is None]
    for path in readable[: len(readable) // 2]:
        path.unlink()
    index = ["--data.train", str(folder / "index.parquet"), "--data.max-broken-fraction", "0.9", "--batch-size", "8"]
    main(flags(tmp_path, "run", *index))
    broken = json.loads(capsys.readouterr().out)["broken"]
    assert len(broken) > 4 + 5
    assert all(str(path) not in broken for path in readable[len(readable) // 2 :])
    with pytest.raises(SystemExit, match="2"):
        main(flags(tmp_path, "strict", *index[:2], "--data.max-broken-fraction", "0.06", "--batch-size", "8"))
    assert "files cannot be read, more than data.max_broken_fraction 0.06 allows" in capsys.readouterr().err
