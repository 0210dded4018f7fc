"""Micro-batches of a run, as a function of the step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, Dataset

from adaptok.config.optimization import BatchPlan
from adaptok.training.clip_data import ClipBatch
from adaptok.training.interruption import ignore_signals
from adaptok.training.sequences import TokenBatch

Batches = Iterator[ClipBatch | TokenBatch]
OpenBatches = Generator[ClipBatch | TokenBatch, None, None]


class ProcessRank(NamedTuple):
    """Place of a process among those of the run."""

    rank: int
    processes: int


def iterate_batches(
    dataset: Dataset[Any],
    collate: Callable[[list[Any]], Any],
    plan: BatchPlan,
    place: ProcessRank,
    steps: range,
    *,
    workers: int,
    pin_memory: bool,
) -> OpenBatches:
    """Iterate over the micro-batches of a process in `steps`.

    Items are indexed by their position in the whole run, so that the batches of a step do not depend on where the
    iteration starts. Closing the generator ends its worker processes. They ignore signals, so that a program whose
    generator is still open when it exits would wait for them forever.
    """

    def indices() -> Iterator[list[int]]:
        for step in steps:
            for micro_step in range(plan.gradient_accumulation_steps):
                first = step * plan.batch_size + (micro_step * place.processes + place.rank) * plan.micro_batch_size
                yield list(range(first, first + plan.micro_batch_size))

    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=_LazySampler(indices),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=ignore_signals,
    )
    batches = iter(loader)
    processes = list(getattr(batches, "_workers", ()))
    try:
        yield from batches
    finally:
        if processes:  # before they are killed, torch must forget them; this waits a few seconds for them to end
            batches._shutdown_workers()  # type: ignore[attr-defined]
        for process in processes:
            process.kill()  # one that is still reading would go on after the run, as it ignores other signals


class _LazySampler:
    """Batch sampler that generates the indices anew for each iteration, since those of a long run fill memory."""

    def __init__(self, generate: Callable[[], Iterator[list[int]]]) -> None:
        self._generate = generate

    def __iter__(self) -> Iterator[list[int]]:
        return self._generate()
