from __future__ import annotations

import os
from pathlib import Path

import pytest

from adaptok.utils import threads
from adaptok.utils.threads import LoadMeter, available_cpus, choose_threads, let_threads_sleep


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.fixture
def clock(monkeypatch) -> dict[str, float]:
    """Time, and CPU time of this process, in seconds."""
    now = {"time": 0.0, "own": 0.0}
    monkeypatch.setattr(threads.time, "monotonic", lambda: now["time"])
    monkeypatch.setattr(threads.time, "process_time", lambda: now["own"])
    return now


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def write_stat(root: Path, busy: list[int], idle: list[int]) -> None:
    """Write /proc/stat with the ticks of every CPU."""
    lines = [f"cpu  {sum(busy)} 0 0 {sum(idle)} 0 0 0 0 0 0"]
    lines += [f"cpu{i} {used} 0 0 {free} 0 0 0 0 0 0" for i, (used, free) in enumerate(zip(busy, idle, strict=True))]
    write(root, proc__stat="\n".join([*lines, "intr 1 2 3", "ctxt 4"]) + "\n")


def test_the_affinity_limits_the_cpus(tmp_path, monkeypatch):
    assert available_cpus(tmp_path) == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 5})
    assert available_cpus(tmp_path) == 2


def test_systems_without_affinity_and_cgroups_use_all_cpus(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    meter = LoadMeter(tmp_path)
    assert available_cpus(tmp_path) == 8
    assert meter.idle_cpus() is None
    assert choose_threads(meter, root=tmp_path) == 8


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("0::/\n", {"cpu.max": "300000 100000"}, 3),
        ("0::/\n", {"cpu.max": "150000 100000"}, 2),  # rounded up
        ("0::/\n", {"cpu.max": "10000 100000"}, 1),
        ("0::/user.slice/job\n", {"user.slice/cpu.max": "200000 100000", "user.slice/job/cpu.max": "max 100000"}, 2),
        ("0::/../other\n", {"cpu.max": "400000 100000"}, 4),  # a namespace that does not contain the cgroup
        ("3:cpu,cpuacct:/docker/1\n0::/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "-1"}, 8),
        (  # a container in which the folder of its cgroup does not exist
            "5:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n0::/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000", "cpu,cpuacct/cpu.cfs_period_us": "50000"},
            5,
        ),
        ("1:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "200000", "cpu/a/cpu.cfs_period_us": "100000"}, 2),
        ("0::/\n", {"cpu.max": "garbage"}, 8),
        ("garbage\n\n", {"cpu.max": "100000 100000"}, 8),
    ],
)
def test_the_quota_of_cgroups_limits_the_cpus(tmp_path, cgroup, files, expected):
    write(tmp_path, proc__self__cgroup=cgroup)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert available_cpus(tmp_path) == expected


@pytest.mark.parametrize(
    ("busy", "idle", "own", "threads"),
    [
        ([0] * 8, [100] * 8, 0.0, 8),  # an idle machine
        ([100, 0, 0, 0, 0, 0, 0, 0], [0, *[100] * 7], 1.0, 8),  # the one CPU in use is ours
        ([100, 100, 0, 0, 0, 0, 0, 0], [0, 0, *[100] * 6], 0.0, 6),
        ([40] * 8, [60] * 8, 0.0, 5),
        ([100] * 8, [0] * 8, 0.5, 4),  # at least half
    ],
)
def test_cpus_that_other_programs_use_are_left_to_them(tmp_path, clock, busy, idle, own, threads):
    write_stat(tmp_path, [1000] * 8, [5000] * 8)
    meter = LoadMeter(tmp_path)
    write_stat(tmp_path, [1000 + n for n in busy], [5000 + n for n in idle])
    clock.update(time=1.0, own=own)
    assert choose_threads(meter, root=tmp_path) == threads


def test_only_the_cpus_of_the_affinity_count(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {6, 7})
    write_stat(tmp_path, [0] * 8, [0] * 8)
    meter = LoadMeter(tmp_path)
    write_stat(tmp_path, [100] * 6 + [0, 50], [0] * 6 + [100, 50])
    clock["time"] = 1.0
    assert meter.idle_cpus() == pytest.approx(1.5)


def test_a_container_whose_cpus_have_other_numbers_uses_the_mean(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {40, 41})
    write_stat(tmp_path, [0] * 8, [0] * 8)
    meter = LoadMeter(tmp_path)
    write_stat(tmp_path, [100] * 4 + [0] * 4, [0] * 4 + [100] * 4)
    clock["time"] = 1.0
    assert meter.idle_cpus() == pytest.approx(1.0)


def test_unknown_formats_say_nothing_about_the_load(tmp_path, clock):
    write(tmp_path, proc__stat="cpu 1 2 3 x 5\n\ncpu0\n")
    meter = LoadMeter(tmp_path)
    clock["time"] = 1.0
    assert meter.idle_cpus() is None


def test_the_load_of_an_instant_is_unknown(tmp_path, clock):
    write_stat(tmp_path, [0] * 8, [0] * 8)
    meter = LoadMeter(tmp_path)
    write_stat(tmp_path, [1] * 8, [0] * 8)
    clock["time"] = 0.01
    assert meter.idle_cpus() is None


def test_the_user_decides_how_threads_wait(monkeypatch):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    let_threads_sleep()
    assert "OMP_WAIT_POLICY" not in os.environ
    monkeypatch.delenv("GOMP_SPINCOUNT")
    monkeypatch.setenv("OMP_WAIT_POLICY", "x")  # so that monkeypatch restores it
    monkeypatch.delenv("OMP_WAIT_POLICY")
    let_threads_sleep()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
