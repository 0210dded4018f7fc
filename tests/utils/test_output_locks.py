"""Locks of outputs: one process works, another says so, and the lock of a killed process is taken over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from adaptok.utils.files import replacing
from adaptok.utils.output_locks import OutputInUseError, holding_file, holding_folder

HOLD = r"""
import os, sys, time
from pathlib import Path
from adaptok.utils import output_locks
from adaptok.utils.files import replacing
with getattr(output_locks, sys.argv[1])(Path(sys.argv[2])), replacing(Path(sys.argv[2]) / "x" if "folder" in sys.argv[1]
        else Path(sys.argv[2])) as temporary:
    if len(sys.argv) > 3 and os.fork() == 0:
        os.write(1, f"{os.getpid()}\n".encode())  # a worker that outlives its parent
        time.sleep(60)
    os.write(1, b"held\n")
    time.sleep(60)
"""


def start(hold, path, *fork: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", HOLD, hold.__name__, str(path), *fork]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("hold", [holding_file, holding_folder])
def test_a_second_process_says_who_is_writing(tmp_path, hold):
    path = tmp_path / "out"
    process = start(hold, path)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(OutputInUseError) as error, hold(path):
        pass
    assert str(path) in str(error.value)
    assert f"process {process.pid} on " in str(error.value)
    assert "for 0 min" in str(error.value)
    assert "\n" not in str(error.value)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(left) == 2  # the lock, and a temporary file
    with hold(path):  # at once
        assert not left[0].exists() or not left[1].exists()
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_forks_do_not_hold_the_locks_of_a_killed_process(tmp_path):
    process = start(holding_folder, tmp_path, "fork")
    lines = {process.stdout.readline().strip() for _ in range(2)}
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        with holding_folder(tmp_path):
            pass
    finally:
        os.kill(int(next(iter(lines - {"held"}))), signal.SIGKILL)
        process.communicate()


def test_locks_leave_nothing(tmp_path):
    with holding_folder(tmp_path / "a" / "b"), holding_file(tmp_path / "x"):
        with pytest.raises(OutputInUseError), holding_file(tmp_path / "x"):
            pass
        (tmp_path / "link").symlink_to(tmp_path / "x")
        with pytest.raises(OutputInUseError), holding_file(tmp_path / "link"):
            pass
        with holding_file(tmp_path / "y"), replacing(tmp_path / "y") as temporary:
            temporary.write_text("y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "y"]


def test_a_damaged_lock_is_no_obstacle(tmp_path):
    (tmp_path / ".adaptok.lock").write_bytes(b"\xff{")
    with holding_folder(tmp_path), pytest.raises(OutputInUseError, match="another process"), holding_folder(tmp_path):
        pass
    assert not list(tmp_path.iterdir())
