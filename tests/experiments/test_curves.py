"""Extrapolation of training curves."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "experiments" / "bundled_model" / "curves.py"


@pytest.mark.parametrize("power", [0.05, 0.3, 1.0])
def test_a_power_law_is_continued(power):
    specification = importlib.util.spec_from_file_location("training_curves", FILE)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    clips = np.array([100.0, 300, 1000, 3000, 5000])
    value, result = module.extrapolate(clips, 0.3 + 2 * clips**-power, 300_000)
    assert result == pytest.approx(power)
    assert value == pytest.approx(0.3 + 2 * 300_000**-power)
