"""Model folders: old and new keys of their configuration, and errors for other folders."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from adaptok import AdapTok, CheckpointError
from adaptok.checkpoints.folders import folder_kind
from adaptok.checkpoints.model_folder import read_folder, read_generator, write_folder

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
    (tmp_path / "SHA256SUMS").unlink()
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
        ('{"format": "adaptok", "version": 1, "model": null}', "expected a mapping of fields, got NoneType"),
        ('{"format": "adaptok", "version": 1, "model": {"tokenizer": null}}', "tokenizer: Input should be"),
        (
            '{"format": "adaptok", "version": 1, "model": {"tokenizer": {"encoder": {"depth": 1000000000, "width": 8, '
            '"heads": 1}}}}',
            "encoder.depth: Input should be less than or equal to 1024, got 1000000000",
        ),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_damaged_configurations_are_refused(codec, tmp_path, text, message):
    codec.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match=message):
        read_folder(tmp_path)


def test_damaged_weights_are_refused(codec, tmp_path):
    codec.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="damaged"):
        read_folder(tmp_path)


@pytest.mark.parametrize("codec", [False], indirect=True)
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "SHA256SUMS"])
def test_flipped_bits_and_exchanged_files_are_noticed(codec, tmp_path, name):
    for folder in ("a", "b"):
        codec.save_pretrained(tmp_path / folder)
        next(codec.model.parameters()).data += 1
        codec.model.config = codec.model.config.model_copy(update={"name": "other"})
    path = tmp_path / "a" / name
    content = path.read_bytes()
    path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with pytest.raises(CheckpointError, match=f"{name}: |delete SHA256SUMS if you changed it on purpose"):
        read_folder(tmp_path / "a")
    path.write_bytes((tmp_path / "b" / name).read_bytes())
    with pytest.raises(CheckpointError, match="not the file that was written with SHA256SUMS"):
        read_folder(tmp_path / "a")
    (tmp_path / "a" / "SHA256SUMS").unlink()  # as in folders of earlier versions
    read_folder(tmp_path / "a")


@pytest.mark.parametrize("codec", [False], indirect=True)
def test_weights_that_are_no_finite_numbers_are_refused(codec, tmp_path):
    path = tmp_path / "model.safetensors"
    codec.save_pretrained(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}  # some versions map the file
    name = max(state)
    for value in (math.nan, math.inf, -math.inf):
        save_file(state | {name: torch.full_like(state[name], value)}, path)
        with pytest.raises(CheckpointError, match=f"infinite or not a number, in {name}; use a model from before"):
            read_folder(tmp_path)
    save_file(state | {name: state[name].int()}, path)
    with pytest.raises(CheckpointError, match=f"{name} has type torch.int32, the configuration expects torch.float32"):
        read_folder(tmp_path).build()
    next(codec.model.parameters()).data.fill_(1e30)
    with pytest.raises(CheckpointError, match="the model in float16: weights that are infinite"):
        write_folder(codec.model, tmp_path / "half", torch.float16)
    assert not (tmp_path / "half").exists()
