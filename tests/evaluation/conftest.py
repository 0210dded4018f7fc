"""Fixtures of the tests of evaluations."""

from __future__ import annotations

import pytest

from tests.helpers.evaluation import FRAMES
from tests.helpers.videos import write_video


@pytest.fixture
def data(tmp_path):
    """A collection with three good videos, one that is shorter than a clip, and one that is damaged."""
    for name, count in FRAMES.items():
        write_video(tmp_path / "data" / f"{name}.mp4", count)
    write_video(tmp_path / "data" / "short.mp4", 5)
    (tmp_path / "data" / "broken.mp4").write_bytes(b"nothing")
    return tmp_path / "data"
