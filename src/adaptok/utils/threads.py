"""Choosing the number of CPU threads, from the limits of the process and the load of the machine.

Only the standard library is imported: the command line chooses before torch is loaded, because OpenMP reads its
environment variables only once. Everything is read from files of Linux. On other systems, all CPUs count as available
and idle.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

THREADS_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that set the number of threads of torch. The first one is set here."""
_WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_MIN_SECONDS = 0.1
"""Shortest time over which the load is measured. /proc/stat counts in hundredths of a second."""


class LoadMeter:
    """Measures, from its creation on, how many of the CPUs of this process other programs leave idle.

    Args:
        root: folder that contains `proc`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._stat = root / "proc/stat"
        self._begin = time.monotonic(), time.process_time(), _cpu_ticks(self._stat)

    def idle_cpus(self) -> float | None:
        """Return the mean number of CPUs that no other program has used.

        Returns:
            None if it is unknown: without /proc/stat, or less than a tenth of a second after the creation.
        """
        (began, own, before), after = self._begin, _cpu_ticks(self._stat)
        elapsed = time.monotonic() - began
        if elapsed < _MIN_SECONDS or before is None or after is None:
            return None
        idle, total = after[0] - before[0], after[1] - before[1]
        if total <= 0:
            return None
        cpus = len(_affinity())
        return min(cpus, cpus * idle / total + (time.process_time() - own) / elapsed)


def available_cpus(root: Path = Path("/")) -> int:
    """Return the number of CPUs that this process may use: those of its affinity, at most the quota of its cgroups.

    Args:
        root: folder that contains `proc` and `sys`.
    """
    return max(1, min(len(_affinity()), *(math.ceil(quota) for quota in _quotas(root)), os.cpu_count() or 1))


def choose_threads(meter: LoadMeter | None = None, *, root: Path = Path("/")) -> int:
    """Choose a number of threads: as many as there are available CPUs that other programs leave idle.

    At least half of the available CPUs are chosen. On a machine that is fully used, another program with as many
    threads would leave this process half of the CPUs, too.

    Args:
        meter: measures the load of the machine. Without it, the machine counts as idle.
        root: folder that contains `proc` and `sys`.
    """
    cpus = available_cpus(root)
    idle = None if meter is None else meter.idle_cpus()
    return cpus if idle is None else min(cpus, max(math.floor(idle + 0.5), math.ceil(cpus / 2)))


def let_threads_sleep() -> None:
    """Make threads of OpenMP sleep while they wait for each other, unless the environment says how they wait.

    By default, they wait in a loop. If another program uses a CPU, the loop takes the time that the thread which is
    waited for would need. OpenMP must not have been loaded yet.
    """
    if not any(name in os.environ for name in _WAIT_VARIABLES):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _cpu_ticks(stat: Path) -> tuple[int, int] | None:
    """Sum the idle and all ticks of the CPUs that this process may use, or of all CPUs if those are not listed."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return None
    ticks: dict[str, tuple[int, int]] = {}
    for line in lines:
        name, *values = line.split() or [""]
        if name.startswith("cpu") and len(values) >= 5 and all(value.isdigit() for value in values):
            numbers = [int(value) for value in values[:8]]  # user, nice, system, idle, waiting, …; then guests, in user
            ticks[name] = numbers[3] + numbers[4], sum(numbers)
    names = [f"cpu{number}" for number in _affinity()]
    if all(name in ticks for name in names):
        return sum(ticks[name][0] for name in names), sum(ticks[name][1] for name in names)
    return ticks.get("cpu")


def _quotas(root: Path) -> Iterator[float]:
    """Yield the CPU quotas, in CPUs, of the cgroups of this process (versions 1 and 2) and of those above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        if line.count(":") < 2:
            continue
        number, controllers, path = line.split(":", 2)
        if number == "0":
            for folder in _with_parents(mounts, path):
                yield from _ratio(_words(folder / "cpu.max"))
        elif "cpu" in controllers.split(","):
            for mount in {"cpu", controllers}:
                for folder in _with_parents(mounts / mount, path):
                    yield from _ratio([*_words(folder / "cpu.cfs_quota_us"), *_words(folder / "cpu.cfs_period_us")])


def _with_parents(mount: Path, path: str) -> Iterator[Path]:
    """Yield the folders of a cgroup and of those above it. In a container, only the mount itself may exist."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for count in range(len(parts) + 1):
        yield mount.joinpath(*parts[:count])


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _ratio(words: Iterable[str]) -> Iterator[float]:
    """Yield quota / period, unless there is no limit, which is written as "max" or -1."""
    match [*words]:
        case [quota, period] if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            yield int(quota) / int(period)
