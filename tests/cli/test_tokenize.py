"""Mistakes with `adaptok tokenize`: one line, and nothing is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptok.cli.main import main
from adaptok.tokenization import tokenize
from tests.helpers.tokenization import options, small_codec, write_brightening_video


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    small_codec().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_brightening_video(folder / "class0" / "0.mp4", 16)
    return folder


def fails(*arguments) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["tokenize", *map(str, arguments)])


def assert_one_line(capsys, message) -> None:
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.strip() and "files" not in line[:70]]
    assert captured.out == ""
    assert len(lines) == 1, captured.err
    assert message in lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "many"], "many"),
        (["--budget", "0"], "expected 8 to 32 tokens per clip"),
        (["--budget", "12", "--target", "0.1"], "exclude each other"),
        (["--stride", "0"], "stride"),
        (["--stride", "4", "--scope", "stream"], "its clips follow each other"),
        (["--condition-frames", "8"], "expected 1 to 7"),
        (["--condition-frames", "-1"], "condition_frames"),
        (["--shard-clips", "0"], "shard_clips"),
        (["--batch-size", "0"], "batch-size"),
        (["--workers", "0"], "workers"),
        (["--engine", "steam"], "steam"),
        (["--fps", "0"], "fps"),
        (["--model", "no/such/model"], "no such model"),
    ],
)
def test_mistakes_give_one_line(model, videos, tmp_path, capsys, arguments, message):
    given = [] if "--model" in arguments else ["--model", model]
    fails(videos, "--out", tmp_path / "out", "--device", "cpu", *given, *arguments)
    assert_one_line(capsys, message)
    assert not (tmp_path / "out").exists()


def test_unusable_sources_and_folders_give_one_line(model, videos, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").touch()
    (tmp_path / "twice.csv").write_text("bad/a.mp4,1\nbad/a.mp4,2\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "part.parquet").touch()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "plan.json").write_text("{")
    (tmp_path / "file").touch()
    tokenize(videos, tmp_path / "begun", model, options(limit=1), device="cpu")
    for source, out, arguments, message in [
        (tmp_path / "empty", "out", [], "no video in it"),
        (tmp_path / "none", "out", [], "no such folder"),
        (tmp_path / "bad", "out", [], "no readable video"),
        (tmp_path / "twice.csv", "out", [], "listed as '1' and as '2'"),
        (tmp_path / "file", "out", [], "expected a folder, or a list"),
        (videos, "other", [], "holds part.parquet and no plan.json"),
        (videos, "damaged", [], "not a plan"),
        (videos, "file", [], "expected a folder to write"),
        (videos, "file/out", [], "file"),
        (videos, "begun", ["--limit", 2], "begun with limit 1, not 2"),
        (videos, "begun", ["--limit", 1, "--stride", 3], "begun with stride 8, not 3"),
        (videos, "begun", ["--limit", 1, "--budget", 10], "begun with budget 12"),
        (tmp_path / "bad", "begun", ["--limit", 1], "begun with source"),
    ]:
        given = ["--model", model, "--shard-clips", 8, *([] if "--budget" in arguments else ["--budget", 12])]
        fails(source, "--out", tmp_path / out, "--device", "cpu", *given, *arguments)
        assert_one_line(capsys, message)
        assert not (tmp_path / "out").exists()
