"""Stages of training: what each one trains, on which data, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from adaptok.config.training import AnyConfig, GeneratorTrainingConfig
from adaptok.training.clip_data import ClipData, open_clip_data
from adaptok.training.stages.base import Stage
from adaptok.training.stages.clip_stages import ScorerStage, TokenizerStage
from adaptok.training.stages.generator import GeneratorStage
from adaptok.training.token_data import TokenData, open_token_data

AnyData = ClipData | TokenData


def build_stage(config: AnyConfig, data: AnyData, device: torch.device) -> Stage[Any]:
    """Create the stage that a configuration names."""
    if isinstance(config, GeneratorTrainingConfig):
        assert isinstance(data, TokenData)
        return GeneratorStage(config, data, device)
    assert isinstance(data, ClipData)
    return {"tokenizer": TokenizerStage, "scorer": ScorerStage}[config.stage](config, data, device)


def open_stage_data(config: AnyConfig, advance: Callable[[int], None] | None = None) -> AnyData:
    """Open the training data of a configuration.

    Args:
        config: configuration of the run.
        advance: called with the number of files just opened.

    Raises:
        FileNotFoundError: a folder, list or dataset does not exist.
        ValueError: the data is empty, does not fit the configuration, or has too many broken files.
    """
    return open_token_data(config) if isinstance(config, GeneratorTrainingConfig) else open_clip_data(config, advance)
