"""Timing of repeated work, and the peak speed of the machine."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch

from adaptok.utils.devices import synchronize
from adaptok.utils.system import peak_memory

GPU_SHAPE = (8192, 8192, 8192)
"""Shape of a further product on devices other than CPUs, which smaller ones do not keep busy."""
MATRIX_SHAPES = ((3072, 3072, 3072), (4096, 768, 3072), (8192, 768, 2304), (2048, 3072, 768))
_TRIES = 4


@dataclass(frozen=True)
class Measurement:
    """Timing of one piece of work.

    Attributes:
        case: name of the work.
        settings: settings that it depends on, such as precision and number of clips.
        median_s, min_s: seconds, over the repeats.
        cpu_s: median CPU time of all threads of this process. If it is much less than threads times `median_s`, other
            programs used the machine and the numbers are unreliable.
        repeats: number of repeats.
        memory_gb: peak resident memory of the process; on a GPU, the peak that torch allocated there.
        work_gflop: operations that the matrix products of the work need at least; None if it has none.
        peak_gflops: peak speed of matrix products at this precision, measured between the repeats.
        more: other figures.
    """

    case: str
    settings: dict[str, Any]
    median_s: float
    min_s: float
    cpu_s: float
    repeats: int
    memory_gb: float
    work_gflop: float | None = None
    peak_gflops: float | None = None
    more: dict[str, float] = field(default_factory=dict)

    @property
    def peak_fraction(self) -> float | None:
        """Fraction of the peak speed that was reached."""
        if self.work_gflop is None or self.peak_gflops is None:
            return None
        return self.work_gflop / self.median_s / self.peak_gflops

    def document(self) -> dict[str, Any]:
        """The measurement as a JSON object."""
        return {**asdict(self), "peak_fraction": self.peak_fraction}

    @classmethod
    def of(
        cls, case: str, settings: dict[str, Any], times: Sequence[Seconds], device: torch.device, **figures: Any
    ) -> Measurement:
        """Summarize repeats that were just timed on a device; `figures` are further fields."""
        elapsed = [each.elapsed for each in times]
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()
        return cls(
            case=case,
            settings=settings,
            median_s=statistics.median(elapsed),
            min_s=min(elapsed),
            cpu_s=statistics.median(each.cpu for each in times),
            repeats=len(times),
            memory_gb=memory / 1e9,
            **figures,
        )


def peak_flops(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of the fastest large matrix product."""
    best = 0.0
    for rows, inner, columns in MATRIX_SHAPES if device.type == "cpu" else (*MATRIX_SHAPES, GPU_SHAPE):
        a, b = torch.randn(rows, inner, device=device).to(dtype), torch.randn(columns, inner, device=device).to(dtype)
        for _ in range(_TRIES):
            synchronize(device)
            started = time.perf_counter()
            torch.mm(a, b.T)
            synchronize(device)
            best = max(best, 2 * rows * inner * columns / (time.perf_counter() - started))
    return best


class Seconds(NamedTuple):
    """Elapsed time and CPU time of one call."""

    elapsed: float
    cpu: float


def timed(run: Callable[[], object], repeats: int, device: torch.device) -> list[Seconds]:
    """Time repeated calls, after one that is not counted."""
    run()
    return [once(run, device) for _ in range(repeats)]


def once(run: Callable[[], object], device: torch.device) -> Seconds:
    """Time one call."""
    synchronize(device)
    started, busy = time.perf_counter(), time.process_time()
    run()
    synchronize(device)
    return Seconds(time.perf_counter() - started, time.process_time() - busy)


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
    """Time work against the peak of the machine, which is measured before, between and after the repeats.

    Args:
        case, settings: name of the work, and its settings.
        run: function that does the work.
        work: operations that it needs at least.
        repeats: number of repeats.
        dtype, device: precision and device of the peak.
    """
    run()
    times, peaks = [], [peak_flops(dtype, device)]
    for _ in range(repeats):
        times.append(once(run, device))
        peaks.append(peak_flops(dtype, device))
    return Measurement.of(case, settings, times, device, work_gflop=work / 1e9, peak_gflops=max(peaks) / 1e9)


def measure_in_process(kind: str, flags: Sequence[object]) -> list[Measurement]:
    """Run `adaptok benchmark KIND FLAGS --json` in a process of its own.

    Raises:
        RuntimeError: the process failed.
    """
    command = [sys.executable, "-m", "adaptok", "benchmark", kind, *map(str, flags), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError("a measurement in a process of its own failed; its error is above")
    results: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    for result in results:
        del result["peak_fraction"]  # a property
    return [Measurement(**result) for result in results]
