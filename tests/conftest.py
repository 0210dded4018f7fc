"""Fixtures that many tests share, and settings of the process that runs them."""

from __future__ import annotations

import os
import signal

# One thread per process: the models are small, and with `pytest -n auto` every core has a process of its own.
# Set before torch is imported, and inherited by the processes that tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
import torch

from adaptok.codec.codec import AdapTok
from adaptok.models.model import Model, weights_hash
from tests.helpers.models import small_config


def pytest_configure() -> None:
    torch.set_num_threads(1)
    # Time limits of hypothesis fail on a busy machine.
    slow_is_fine = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.register_profile("adaptok", slow_is_fine)
    hypothesis.settings.load_profile("adaptok")
    # A shell that starts a job in the background makes it ignore SIGINT, and so do its children. Tests that
    # interrupt a process need the default.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """A cache of downloads and features for the tests alone."""
    os.environ["ADAPTOK_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(params=[False, True], ids=["scalar", "vector"])
def codec(request) -> AdapTok:
    torch.manual_seed(0)
    model = Model(small_config(request.param))
    for parameter in model.parameters():  # also those that are initialized to zero
        torch.nn.init.normal_(parameter, std=0.3)
    return AdapTok(model, weights_hash(model.state_dict()))


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.rand(3, 3, 8, 16, 16, generator=torch.Generator().manual_seed(1))
