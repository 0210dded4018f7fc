"""Descriptions of the machine."""

from __future__ import annotations

import numpy as np
import torch

from adaptok.utils.system import describe_machine, peak_memory, versions


def test_peak_memory_grows_with_use():
    before = peak_memory()
    assert np.ones(before // 8 + 2**22).sum() > 0
    assert peak_memory() > before


def test_versions_and_machine():
    assert versions()["torch"] == torch.__version__.split("+")[0] or versions()["torch"] == torch.__version__
    machine = describe_machine(torch.device("cpu"))
    assert machine["device"] == "cpu"
    assert machine["threads"] == torch.get_num_threads()
