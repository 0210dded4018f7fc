"""The Ray engine writes the shards of a local run."""

from __future__ import annotations

import sys

import pytest

from adaptok.tokenization import tokenize
from tests.helpers.tokenization import contents, options


@pytest.mark.ray
@pytest.mark.slow
def test_ray_writes_the_same(codec, model, videos, tmp_path):
    tokenize(videos, tmp_path / "one", codec, options(stride=2))
    done = tokenize(videos, tmp_path / "ray", model, options(stride=2), device="cpu", workers=2, engine="ray")
    assert done.written == done.shards
    assert contents(tmp_path / "one") == contents(tmp_path / "ray")


def test_missing_ray_fails_before_any_work(model, videos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'adaptok\[ray\]'"):
        tokenize(videos, tmp_path / "out", model, options(), engine="ray", device="cpu")
    assert not (tmp_path / "out").exists()
