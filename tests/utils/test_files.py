"""Claims: one writer, whatever is left behind, and nothing half-made."""

from __future__ import annotations

import pytest

from adaptok.utils.files import PARTIAL, claiming, sweep


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


def test_what_was_left_is_written_over_or_removed(tmp_path):
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
