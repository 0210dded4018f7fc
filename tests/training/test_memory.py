"""Models that cannot fit into the memory of the machine."""

from __future__ import annotations

import pytest

from adaptok.config.model import ModelConfig
from adaptok.config.transformer import StackConfig
from adaptok.training.memory import check_memory
from tests.helpers.models import small_config


def test_models_beyond_the_memory_are_refused_before_they_are_built():
    check_memory(small_config())
    huge = StackConfig(width=65536, depth=1024, heads=64)
    for config in (huge, ModelConfig.parse({"tokenizer": {"decoder": huge.model_dump()}})):
        with pytest.raises(ValueError, match=r"5.28e\+13 weights needs 196,6\d\d GiB .*; lower the width or the depth"):
            check_memory(config)
