"""Outputs: locked while a command runs, never replaced by half, and errors of the disk in one line."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from adaptok.cli.main import main
from adaptok.utils.output_locks import holding_file, holding_folder
from adaptok.video.writing import VideoWriter
from tests.helpers.disk import limited_files

COMMANDS = {  # each with its output as OUT, and V and F for a video and a folder of videos
    "encode V OUT.adaptok": holding_file,
    "encode V OUT.adaptok --force": holding_file,
    "encode F OUT": holding_folder,
    "decode F OUT": holding_folder,
    "reconstruct V OUT.mp4": holding_file,
    "reconstruct V --plot OUT.png": holding_file,
    "reconstruct F OUT": holding_folder,
    "predict V -o OUT.mp4": holding_file,
    "generate -o OUT": holding_folder,
    "train tokenizer -o OUT": holding_folder,
    "convert adaptok-tiny OUT": holding_folder,
    "export-onnx adaptok-tiny OUT": holding_folder,
    "evaluate files --reference F --prediction F -o OUT": holding_folder,
    "data index F -o OUT.parquet": holding_file,
    "data resize F OUT": holding_folder,
    "data synthesize OUT": holding_folder,
    "compare F F -o OUT.html": holding_file,
}


def fails(capsys, code: int, *arguments: object) -> str:
    """The only line that a command prints, which must fail with this code."""
    with pytest.raises(SystemExit, match=str(code)):
        main([*map(str, arguments)])
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "note:" not in line and "Preparing" not in line]
    assert len(lines) == 1, captured.err
    return lines[0]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "videos").mkdir()
    for number in range(2):
        with VideoWriter(tmp_path / "videos" / f"{number}.mp4", 30) as writer:
            writer.write(np.random.default_rng(number).integers(0, 255, (8, 64, 64, 3), np.uint8))
    return tmp_path / "videos"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_second_process_on_an_output_says_so(tmp_path, folder, command, capsys):
    (folder / "x.adaptok").touch()
    places = {"OUT": str(tmp_path / "out"), "V": str(folder / "0.mp4"), "F": str(folder)}
    words = [
        word.replace("OUT", places["OUT"]) if "OUT" in word else places.get(word, word) for word in command.split()
    ]
    output = next(word for word in words if word.startswith(places["OUT"]))
    with COMMANDS[command](tmp_path / os.path.basename(output)):
        before = sorted(tmp_path.rglob("*"))
        line = fails(capsys, 1, *words)
        assert sorted(tmp_path.rglob("*")) == before
    assert f"{output}: another process (process {os.getpid()} on " in line
    assert "is writing it; wait until it has finished, or choose another output" in line


def test_a_full_disk_is_no_fault_of_the_videos(folder, capsys):
    Image.new("RGB", (64, 64)).save(folder / "2.jpg")
    with limited_files(3_000):
        line = fails(capsys, 1, "data", "resize", folder, folder.parent / "out", "--crf", 0, "--quiet")
    assert ".mp4: file too large; free some space" in line
    assert not (folder.parent / "out" / "broken.json").exists()


def test_a_full_disk_while_a_model_is_written(tmp_path, capsys):
    with limited_files(100_000):
        line = fails(capsys, 1, "convert", "adaptok-tiny-generator", tmp_path / "out")
    assert line.endswith("model.safetensors: file too large; free some space, and run the command again")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_devices_are_not_replaced(tmp_path, folder, capsys):
    (tmp_path / "null.parquet").symlink_to(os.devnull)
    line = fails(capsys, 2, "data", "index", folder, "-o", tmp_path / "null.parquet", "--force")
    assert "null.parquet: a device or pipe, expected the name of a file" in line
    assert (tmp_path / "null.parquet").is_symlink()


def test_names_up_to_the_limit_of_the_file_system(tmp_path, folder, capsys):
    for length, code in ((253, 0), (256, 2)):
        name = tmp_path / f"{'x' * (length - len('.parquet'))}.parquet"
        if code:
            assert "name too long" in fails(capsys, code, "data", "index", folder, "-o", name)
        else:
            main(["data", "index", str(folder), "-o", str(name), "--json"])
            assert json.loads(capsys.readouterr().out)["files"] == 2
            assert name.exists()
