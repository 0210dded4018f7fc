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
