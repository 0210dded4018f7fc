"""Estimates of runs before they start."""

from __future__ import annotations

import pytest

from adaptok.config.training import STAGES, load_training_config, preset_names
from adaptok.training.estimate import describe


@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage in STAGES for name in preset_names(stage)])
def test_presets_are_described_without_data(stage, name):
    overrides = {} if stage == "generator" else {"data.train": [], "data.validation": "null"}
    config = load_training_config(name, stage, overrides)
    description = describe(config)
    assert sum(description["parameters"].values()) > 1e5
    assert description["gflop_per_step"] > 0
    assert description["memory_gb"] > 0
    assert description["steps"] == config.max_steps  # unknown for epochs of unknown data
    assert description["clips_per_step"] == config.batch_size
