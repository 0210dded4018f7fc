from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from adaptok.cli.benchmark import Allocate
from adaptok.cli.encode import Encode
from adaptok.cli.main import main
from adaptok.cli.options import Computation
from adaptok.cli.threads import set_threads
from adaptok.cli.train import TrainTokenizer


class BusyMachine:
    """A meter of a machine whose 8 CPUs are used by other programs."""

    def idle_cpus(self) -> float:
        return 0.0


@pytest.fixture(autouse=True)
def before_torch(monkeypatch):
    """A process that has 8 CPUs, and has not loaded torch."""
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for name in ("MKL_NUM_THREADS", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "x")  # so that monkeypatch restores it
        monkeypatch.delenv(name)
    monkeypatch.setattr("adaptok.utils.threads.available_cpus", lambda root: 8)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (Encode(video="clip.mp4"), "4"),
        (Encode(video="clip.mp4", computation=Computation(threads=3)), "3"),
        (Allocate(threads=16), "16"),
        (TrainTokenizer(), "8"),  # a run must give the same result to the bit under any load
    ],
)
def test_threads_of_commands(command, expected):
    set_threads(command, BusyMachine())
    assert os.environ["OMP_NUM_THREADS"] == expected
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_the_environment_decides_unless_there_is_a_flag(monkeypatch, name):
    monkeypatch.setenv(name, "7")
    set_threads(Encode(video="clip.mp4"), BusyMachine())
    assert os.environ[name] == "7"
    set_threads(Allocate(threads=2), BusyMachine())
    assert os.environ["OMP_NUM_THREADS"] == "2"
    assert "MKL_NUM_THREADS" not in os.environ


def test_torch_uses_the_threads():
    command = [sys.executable, "-m", "adaptok", "benchmark", "allocate", "--blocks", "8", "--repeats", "1", "--json"]
    result = subprocess.run([*command, "--threads", "2"], capture_output=True, check=True, text=True)
    assert json.loads(result.stdout)["machine"]["threads"] == 2


def test_threads_out_of_range(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["encode", "clip.mp4", "--threads", "0"])
    assert stop.value.code == 2
    assert "--threads 0, expected 1 or more" in capsys.readouterr().err
