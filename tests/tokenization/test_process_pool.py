"""Several processes write the shards of one, even if some are killed or interrupted.

ADAPTOK_KILLS and ADAPTOK_KILLED_CLIPS make the test of kills longer.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time

import numpy as np
import pytest

from adaptok.tokenization import tokenize
from tests.helpers.tokenization import command, contents, options, rows, shards, write_brightening_video

pytestmark = pytest.mark.slow


def test_two_workers_write_the_same_and_may_be_killed(codec, model, videos, tmp_path):
    tokenize(videos, tmp_path / "one", codec, options(stride=2))

    def on_start(plan, clips):
        def advance(count):
            multiprocessing.active_children()[0].kill()

        return advance

    with pytest.raises(ChildProcessError, match="exit code -9"):
        tokenize(videos, tmp_path / "two", model, options(stride=2), device="cpu", workers=2, on_start=on_start)
    assert not multiprocessing.active_children()
    assert not (tmp_path / "two" / ".partial").exists()
    left: list[int] = []
    done = tokenize(
        videos,
        tmp_path / "two",
        model,
        options(stride=2),
        device="cpu",
        workers=2,
        on_start=lambda plan, clips: left.append(clips) or (lambda count: left.append(-count)),
    )
    assert sum(left) == 0  # progress ends at the planned number of clips
    assert done.clips == len(rows(tmp_path / "one"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_errors_of_workers_are_raised(model, tmp_path):
    for name in "ab":
        write_brightening_video(tmp_path / "in" / f"{name}.mp4", 16)
    tokenize(tmp_path / "in", tmp_path / "out", model, options(shard_clips=1), device="cpu")
    for name in "ab":
        (tmp_path / "in" / f"{name}.mp4").rename(tmp_path / f"{name}.mp4")
    for path in (tmp_path / "out").glob("*.parquet"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"\.mp4: removed since"):
        tokenize(tmp_path / "in", tmp_path / "out", model, options(shard_clips=1), device="cpu", workers=2)


def test_killed_runs_lose_and_duplicate_nothing(codec, model, tmp_path):
    """Send SIGKILL at random moments, to the main process alone or to all processes at once."""
    kills, clips = int(os.environ.get("ADAPTOK_KILLS", 3)), int(os.environ.get("ADAPTOK_KILLED_CLIPS", 48))
    source, whole, out = tmp_path / "in", tmp_path / "whole", tmp_path / "out"
    for index in range(clips // 4):
        write_brightening_video(source / f"class{index % 3}" / f"{index:03d}.mp4", 20 * (1 + index % 2), index)
    started = options(shard_clips=4, stride=6)
    assert tokenize(source, whole, codec, started).clips >= clips
    rng, finished = np.random.default_rng(), {}
    for kill in range(kills):
        process = subprocess.Popen(
            command(source, out, model, "--stride", 6, "--workers", 1 + kill % 2, "--quiet"), start_new_session=True
        )
        patience = int(rng.integers(0, 4))  # shards to wait for; 0 is any moment after the start
        deadline = time.monotonic() + (60 if patience else 4 * rng.random())
        while process.poll() is None and time.monotonic() < deadline:
            if patience and len(shards(out)) >= len(finished) + patience:
                time.sleep(0.2 * rng.random())
                break
            time.sleep(0.005)
        if kill % 3:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        now = shards(out) if out.exists() else {}
        assert {name: now[name] for name in finished} == finished
        assert all(data[:4] == data[-4:] == b"PAR1" for _, _, data in now.values())
        finished = now
    subprocess.run(command(source, out, model, "--stride", 6, "--workers", 2, "--quiet"), check=True)
    now = shards(out)
    assert {name: now[name] for name in finished} == finished
    assert rows(out) == rows(whole)
    assert contents(out) == contents(whole)
    assert not (out / ".partial").exists()


def test_an_interrupt_leaves_no_partial_files(model, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    for index in range(8):
        write_brightening_video(source / f"{index}.mp4", 200, index)
    process = subprocess.Popen(
        command(source, out, model, "--stride", 1, "--workers", 2), start_new_session=True, stderr=subprocess.PIPE
    )
    while not list(out.glob(".partial/*")) and process.poll() is None:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not (out / ".partial").exists()
