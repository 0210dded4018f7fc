"""Repeats, medians, and the peak of the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch

from adaptok.utils.system import peak_memory

_SHAPES = ((3072, 3072, 3072), (4096, 768, 3072), (8192, 768, 2304), (2048, 3072, 768))
_TRIES = 4


@dataclass(frozen=True)
class Measurement:
    """One piece of work.

    Attributes:
        case: what was done.
        settings: what it depends on: precision, clips, ….
        median_s, least_s: of the repeats.
        processor_s: median time on processors, all threads of this process together. Where that is much less than
            threads times `median_s`, others used the machine, and times and shares say little.
        repeats: how many there were.
        work_gflop: the least that the work needs, matrix products alone; None where that is not what it is made of.
        peak_gflops: of this machine's matrix products at this precision, measured between the repeats.
        share: of the peak that was reached.
        memory_gb: the most that the process had resident; on a graphics card, that torch had allocated there.
        more: other figures.
    """

    case: str
    settings: dict[str, Any]
    median_s: float
    least_s: float
    processor_s: float
    repeats: int
    memory_gb: float
    work_gflop: float | None = None
    peak_gflops: float | None = None
    more: dict[str, float] = field(default_factory=dict)

    @property
    def share(self) -> float | None:
        if self.work_gflop is None or self.peak_gflops is None:
            return None
        return self.work_gflop / self.median_s / self.peak_gflops

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "share": self.share}


def synchronize(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of the best large matrix product."""
    best = 0.0
    for rows, inner, columns in _SHAPES:
        a, b = torch.randn(rows, inner, device=device).to(dtype), torch.randn(columns, inner, device=device).to(dtype)
        for _ in range(_TRIES):
            synchronize(device)
            started = time.perf_counter()
            torch.mm(a, b.T)
            synchronize(device)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - started))
    return best


class Spent(NamedTuple):
    """Seconds of one call: passed, and on processors."""

    passed: float
    processor: float


def timed(run: Callable[[], object], repeats: int, device: torch.device) -> list[Spent]:
    """Each repeat, after one that does not count."""
    run()
    return [once(run, device) for _ in range(repeats)]


def once(run: Callable[[], object], device: torch.device) -> Spent:
    """One call."""
    synchronize(device)
    started, busy = time.perf_counter(), time.process_time()
    run()
    synchronize(device)
    return Spent(time.perf_counter() - started, time.process_time() - busy)


def summary(spent: Sequence[Spent]) -> dict[str, Any]:
    """What a measurement says of its repeats."""
    passed = [each.passed for each in spent]
    return {
        "median_s": statistics.median(passed),
        "least_s": min(passed),
        "processor_s": statistics.median(each.processor for each in spent),
        "repeats": len(spent),
    }


def measure(
    case: str,
    settings: dict[str, Any],
    run: Callable[[], object],
    work: float,
    *,
    repeats: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Measurement:
    """Time some work against the machine's peak, which is measured before, between and after the repeats.

    Args:
        work: operations, at least.
    """
    run()
    spent, peaks = [], [peak(dtype, device)]
    for _ in range(repeats):
        spent.append(once(run, device))
        peaks.append(peak(dtype, device))
    return Measurement(
        case=case,
        settings=settings,
        **summary(spent),
        memory_gb=memory(device) / 1e9,
        work_gflop=work / 1e9,
        peak_gflops=max(peaks) / 1e9,
    )


def memory(device: torch.device) -> int:
    """The most bytes so far."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
