"""The CUDA device of the tests: one that is simulated on the CPU, and a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.helpers.simulated_cuda import simulated_cuda


@pytest.fixture(params=["simulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def cuda(request) -> Iterator[str]:
    """Make the device "cuda" available, and return which kind it is."""
    if request.param == "simulated":
        with simulated_cuda():
            yield request.param
    else:
        with torch.backends.cudnn.flags(allow_tf32=False):  # results are compared with those of the CPU
            yield request.param
