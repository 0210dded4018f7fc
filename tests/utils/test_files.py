"""Atomic and claimed files: one writer, and nothing incomplete."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from adaptok.utils.files import PARTIAL, WriteError, claiming, replacing, sha256_of, sweep
from adaptok.utils.output_locks import holding_file
from tests.helpers.disk import limited_files


def test_a_file_is_claimed_once(tmp_path):
    path = tmp_path / "x"
    with claiming(path) as first:
        assert first is not None
        first.write(b"first")
        with claiming(path) as second:
            assert second is None
        sweep(tmp_path)  # leaves what is being written
        assert not path.exists()
    assert path.read_bytes() == b"first"
    with claiming(path, wait=True) as third:
        assert third is None
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_incomplete_files_are_replaced_or_removed(tmp_path):
    (tmp_path / PARTIAL).mkdir()
    for name in "xy":
        (tmp_path / PARTIAL / name).write_bytes(b"what a killed process left")
    with claiming(tmp_path / "x") as file:
        file.write(b"new")
    sweep(tmp_path)
    assert (tmp_path / "x").read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_an_error_leaves_nothing(tmp_path):
    def fail():
        with claiming(tmp_path / "x") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    sweep(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]
    assert sha256_of(path) == "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437"


def test_the_target_of_a_link_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "x.txt", tmp_path / "link.txt"
    link.symlink_to(target)  # the target does not exist yet
    for text in ("new", "newer"):
        with replacing(link) as temporary:
            temporary.write_text(text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert sorted(tmp_path.rglob("*")) == [link, target.parent, target]


def test_only_files_are_replaced(tmp_path):
    (tmp_path / "null").symlink_to(os.devnull)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    for name in ("null", "itself", "pipe", "folder"):
        with pytest.raises(ValueError, match="choose another output"), replacing(tmp_path / name):
            pass
    assert sorted(tmp_path.iterdir()) == before
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize(("umask", "mode", "expected"), [(0o077, None, 0o600), (0o022, None, 0o644), (0, 0o640, 0o640)])
def test_permissions_are_those_of_the_umask_or_of_the_existing_file(tmp_path, umask, mode, expected):
    path = tmp_path / "x"
    if mode is not None:
        path.touch()
        path.chmod(mode)
    previous = os.umask(umask)
    try:
        with replacing(path) as temporary:
            temporary.write_text("new")
        with claiming(tmp_path / "y") as file:
            file.write(b"new")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == expected
    assert stat.S_IMODE((tmp_path / "y").stat().st_mode) == 0o666 & ~umask


def test_long_names_can_be_written(tmp_path):
    path = tmp_path / ("x" * 251 + ".mp4")
    with replacing(path) as temporary, holding_file(path):
        assert temporary.suffix == ".mp4"
    assert path.exists()


def test_a_full_disk_is_named_in_one_line(tmp_path):
    (tmp_path / "x").write_text("old")
    writers = [
        lambda path: path.write_bytes(bytes(10_000)),
        lambda path: save_file({"x": torch.zeros(10_000)}, path),
        lambda path: Image.effect_noise((200, 200), 90).save(path, format="png"),
    ]
    for write in writers:
        full = pytest.raises(WriteError, match=r"/x: file too large; free some space")
        with limited_files(5_000), full, replacing(tmp_path / "x") as temporary:
            write(temporary)
    with limited_files(5_000), pytest.raises(WriteError), claiming(tmp_path / "y") as file:
        file.write(bytes(10_000))
    assert (tmp_path / "x").read_text() == "old"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["x"]
