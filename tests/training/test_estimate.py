"""Estimates of runs before they start."""

from __future__ import annotations

import pytest

from adaptok.config.losses import LpipsLossConfig
from adaptok.config.training import STAGES, load_training_config, preset_names
from adaptok.training.estimate import describe, lpips_cost, step_flops, step_memory
from tests.helpers import training


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


def test_lpips_counts_in_the_work_and_the_memory(tmp_path):
    """VGG16 runs on both clips, and its gradient costs as much as a third run."""
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    sides = [32] * 2 + [16] * 2 + [8] * 3 + [4] * 3 + [2] * 3  # halved after 2, 4, 7 and 10 convolutions
    forward = sum(2 * 9 * a * b * side**2 for a, b, side in zip(widths, widths[1:], sides, strict=False))
    assert lpips_cost("vgg", 32).forward == forward
    plain = training.config(tmp_path, "tokenizer", micro_batch_size=2, batch_size=None)
    loss = LpipsLossConfig(weight=1.0, frames=3, crop=32)
    perceptual = plain.model_copy(update={"losses": plain.losses.model_copy(update={"lpips": loss})})
    size = min(32, plain.model.tokenizer.size)
    assert step_flops(perceptual) - step_flops(plain) == 2 * 3 * 3 * lpips_cost("vgg", size).forward
    assert step_memory(perceptual) > step_memory(plain)
