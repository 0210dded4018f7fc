"""Published weight files."""

from __future__ import annotations

import pytest

from adaptok.metrics.pretrained import Published, WeightsError
from adaptok.utils.files import sha256_of


def test_fetching(tmp_path, monkeypatch):
    """A file is fetched once, checked, and kept; without a network, one line says what to do."""
    monkeypatch.setenv("ADAPTOK_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "there.bin"
    source.write_bytes(b"weights")
    good = Published("a.bin", source.as_uri(), sha256_of(source), 1)
    with pytest.raises(WeightsError, match="give its path, or --download"):
        good.find()
    assert good.find(download=True).read_bytes() == b"weights"
    source.unlink()
    assert good.find().read_bytes() == b"weights"
    source.write_bytes(b"others")
    with pytest.raises(WeightsError, match=r"not the published b\.bin"):
        Published("b.bin", source.as_uri(), good.sha256, 1).find(download=True)
    nowhere = Published("c.bin", (tmp_path / "nowhere").as_uri(), good.sha256, 1)
    with pytest.raises(WeightsError, match=r"c\.bin cannot be downloaded from .*; without a network, give its path"):
        nowhere.find(download=True)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a.bin"]


def test_converted_weights(tmp_path, monkeypatch):
    """A published source is converted, also one that somebody saved in the cache, unless it is another file."""
    monkeypatch.setenv("ADAPTOK_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source.tar"
    source.write_bytes(b"weights")

    def convert(source, target):
        target.write_bytes(source.read_bytes().upper())

    weights = Published("a.bin", source.as_uri(), sha256_of(source), 1, convert)
    assert weights.fetch().read_bytes() == b"WEIGHTS"
    weights.cached.unlink()
    assert weights.source == tmp_path / "cache" / "source.tar"
    weights.source.write_bytes(b"others")
    with pytest.raises(WeightsError, match="remove it, or save a good copy"):
        weights.find()
    weights.source.write_bytes(b"weights")
    assert weights.find().read_bytes() == b"WEIGHTS"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a.bin"]
