"""Micro-batches and the processes that read them."""

from __future__ import annotations

import multiprocessing
import time

import pytest
import torch
from torch.utils.data import Dataset

from adaptok.config.optimization import BatchPlan
from adaptok.training.batches import ProcessRank, iterate_batches


class Items(Dataset):
    """Item i is i, and from the fifth on it takes a minute. Item `broken` cannot be read."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.broken:
            raise ValueError("no such item")
        if index >= 4:
            time.sleep(60)
        return torch.tensor(index)

    def __len__(self) -> int:
        return 1000


def test_processes_end_with_the_iteration(monkeypatch):
    """Also those that are in the middle of a batch."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    before = set(multiprocessing.active_children())
    batches = iterate_batches(
        Items(), torch.stack, BatchPlan(2, 2, 1), ProcessRank(0, 1), range(100), workers=2, pin_memory=False
    )
    assert next(batches).tolist() == [0, 1]
    started = set(multiprocessing.active_children()) - before
    assert len(started) == 2
    batches.close()
    for process in started:
        process.join(timeout=5)
        assert not process.is_alive()


def test_an_error_stays_the_only_one(monkeypatch):
    """torch raises an error wherever the program is when a process is killed that it has not forgotten."""
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)
    batches = iterate_batches(
        Items(2), torch.stack, BatchPlan(2, 2, 1), ProcessRank(0, 1), range(100), workers=2, pin_memory=False
    )
    with pytest.raises(ValueError, match="no such item") as error:
        list(batches)
    for _ in range(30):
        time.sleep(0.01)
    assert error.value.__traceback__ is not None  # which holds the frames of the iteration
