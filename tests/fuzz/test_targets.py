"""A few inputs of every fuzz target, in the process of the test. `make fuzz` runs many, in processes of their own."""

from __future__ import annotations

import os

import pytest

from tests.fuzz.harness import judge
from tests.fuzz.targets import TARGETS, load_target

COUNTS = {
    "token_files": 60,
    "token_datasets": 12,
    "model_folders": 20,
    "configurations": 8,
    "manifests": 60,
    "videos": 20,
    "run_folders": 2,
}


@pytest.mark.skipif(os.name == "nt", reason="targets name files as Windows does not allow")
@pytest.mark.parametrize("name", TARGETS)
def test_inputs_are_read_or_refused(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)  # some targets change it
    target = load_target(name)
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    target.prepare(seeds)
    target.open(seeds)
    outcomes = [judge(target, 0, index, tmp_path / "input") for index in range(COUNTS[name])]
    failed = {index: outcome.text for index, outcome in enumerate(outcomes) if outcome.kind == "failed"}
    assert not failed, f"python -m tests.fuzz {name} --seed 0 --repeat {min(failed)}\n" + "\n".join(failed.values())
    assert name == "run_folders" or any(outcome.kind == "refused" for outcome in outcomes)
