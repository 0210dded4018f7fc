"""Model folders: old and new keys of their configuration, and errors for other folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adaptok import AdapTok, CheckpointError
from adaptok.checkpoints.folders import folder_kind
from adaptok.checkpoints.model_folder import read_folder, read_generator

FIXTURES = Path(__file__).parents[1] / "fixtures"
FORMATS = FIXTURES / "formats"


def test_old_keys_of_the_scorer_load_and_new_ones_are_written(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    document = json.loads(path.read_text())
    scorer = document["model"]["scorer"]
    new = {"length_step": "step", "probe_lengths": "anchors", "lambdas": "prices"}
    assert not set(new.values()) & set(scorer)
    document["model"]["scorer"] = {new.get(name, name): value for name, value in scorer.items()}
    path.write_text(json.dumps(document))
    assert AdapTok.from_pretrained(tmp_path, device="cpu").config == codec.config


@pytest.mark.parametrize(
    ("folder", "kind", "message"),
    [
        ("formats/runs/scorer", "run", "a training run"),
        ("formats/token-datasets/labels", "token dataset", "a token dataset"),
        ("formats/reports/a", "report", "the report of an evaluation"),
        ("formats/clips", None, "expected a model folder"),
    ],
)
def test_other_folders_are_recognized(folder, kind, message):
    assert folder_kind(FIXTURES / folder) == kind
    with pytest.raises(FileNotFoundError, match=message):
        read_folder(FIXTURES / folder)


def test_kinds_of_models_are_recognized():
    assert folder_kind(FORMATS / "model") == folder_kind(FIXTURES / "official") == "model"
    with pytest.raises(CheckpointError, match="a generator, expected a tokenizer"):
        read_folder(FORMATS / "generator")
    with pytest.raises(CheckpointError, match="tokenizer model, expected a generator"):
        read_generator(FIXTURES / "official")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "expected a JSON object, got list"),
        ("{}", "neither an adaptok model"),
        ('{"format": "adaptok", "version": 9}', "install a newer adaptok"),
        ('{"format": "adaptok", "version": 1, "model": {"scorer": {"lenght_step": 2}}}', "did you mean 'length_step'"),
        ('{"bottleneck_token_num": 4}', "unknown weights"),
    ],
)
def test_damaged_configurations_are_refused(codec, tmp_path, text, message):
    codec.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        read_folder(tmp_path)


def test_damaged_weights_are_refused(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="damaged"):
        read_folder(tmp_path)
