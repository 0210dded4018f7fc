"""Atomic and claimed files: one writer, and nothing incomplete."""

from __future__ import annotations

import pytest

from adaptok.utils.files import PARTIAL, claiming, replacing, sha256_of, sweep


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
