"""`adaptok data`: indices and downscaled copies, and mistakes with them."""

from __future__ import annotations

import json

import pytest

from adaptok.cli.main import main
from adaptok.data.manifests import read_manifest
from tests.helpers.videos import write_video


def test_index(tmp_path, capsys):
    write_video(tmp_path / "a" / "one.mp4", 20)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "zero.avi").touch()
    whole = (tmp_path / "a" / "one.mp4").read_bytes()
    main(["data", "index", str(tmp_path), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == 2
    assert list(report["broken"]) == [str(tmp_path / "b" / "zero.avi")]
    with pytest.raises(SystemExit, match="2"):
        main(["data", "index", str(tmp_path)])  # exists already
    (tmp_path / "b" / "zero.avi").write_bytes(whole)
    main(["data", "index", str(tmp_path), "--force", "--thorough", "--quiet"])
    assert [entry.error for entry in read_manifest(tmp_path / "index.parquet")] == [None, None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "{}/missing"], "no such folder"),
        (["index", "{}/empty"], "no video and no photograph"),
        (["resize", "{}/empty", "{}/out"], "contains no video and no photograph"),
        (["resize", "{}", "{}/out"], "one folder lies in the other"),
        (["resize", "{}/empty", "{}/out", "--size", "4"], "16 pixels or more"),
    ],
)
def test_mistakes_give_one_line(tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="2"):
        main(["data", *(argument.format(tmp_path) for argument in arguments)])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
