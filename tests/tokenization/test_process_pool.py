"""Several processes write the shards of one dataset, even if some are killed or interrupted.

`make crash` kills whole runs at random moments.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time

import pytest

from adaptok.tokenization import tokenize
from tests.helpers.tokenization import command, contents, options, rows, write_brightening_video

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
