"""`adaptok info`: every kind of file and folder that the program writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.helpers.commands import fails, run

FORMATS = Path(__file__).parents[1] / "fixtures" / "formats"


@pytest.mark.parametrize(
    ("path", "kind", "fields"),
    [
        ("model", "model", {"layout", "weights_hash", "parameters", "tokenizer"}),
        ("generator", "generator", {"parameters", "labels"}),
        ("runs/tokenizer", "training run", {"stage", "step", "checkpoints", "config"}),
        ("token-datasets/labels", "token dataset", {"shards", "clips", "model", "settings"}),
        ("reports/a", "report", {"evaluation", "results", "metrics"}),
        ("index.parquet", "index of a collection", {"files", "unreadable"}),
        ("wide.mp4", "video", {"frames", "width", "height"}),
    ],
)
def test_kinds(capsys, path, kind, fields):
    document = run(capsys, "info", FORMATS / path)
    assert document["kind"] == kind
    assert fields <= document.keys()


def test_token_files(capsys):
    for path in (FORMATS / "token-files").glob("*.adaptok"):
        document = run(capsys, "info", path)
        assert document["kind"] == "tokens"
        assert sum(document["lengths"]) == document["tokens"]


def test_other_folders_are_named(capsys, tmp_path):
    assert "expected a model folder, a training run, a token dataset or a report" in fails(capsys, "info", tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "stage: \b\n", "config.yaml: not a YAML file (unacceptable character"),
        ("metrics.jsonl", '{"step": 1}\n{"st', "metrics.jsonl: its last line is damaged"),
        ("metrics.jsonl", "[1]\n", "metrics.jsonl: its last line is damaged"),
    ],
)
def test_damaged_runs_are_described_in_one_line(capsys, tmp_path, name, content, message):
    shutil.copytree(FORMATS / "runs" / "tokenizer", tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    assert message in fails(capsys, "info", tmp_path / "run")
