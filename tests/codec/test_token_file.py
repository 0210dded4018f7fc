"""Token files: format, damage, truncation, and values that contradict each other."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from adaptok import TokenFileError, VideoTokens


@pytest.fixture
def tokens(codec) -> VideoTokens:
    frames = np.random.default_rng(0).integers(0, 256, (5, 20, 28, 3), dtype=np.uint8)
    return codec.encode(frames, 16)


def test_any_flipped_byte_is_detected(tokens, tmp_path):
    path = tmp_path / "x.adaptok"
    tokens.save(path)
    assert VideoTokens.load(path) == tokens
    data = path.read_bytes()
    for index in range(len(data)):
        damaged = bytearray(data)
        damaged[index] ^= 1 << (index % 8)
        with pytest.raises(TokenFileError):
            VideoTokens.from_bytes(bytes(damaged))
    for length in (0, 7, 100, len(data) - 1):
        with pytest.raises(TokenFileError):
            VideoTokens.from_bytes(data[:length])


def test_format_is_as_specified(tokens, tmp_path):
    path = tmp_path / "x.adaptok"
    tokens.save(path)
    tensors = load_file(path)
    assert {name: (tensor.dtype.name, tensor.ndim) for name, tensor in tensors.items()} == {
        "ids": ("uint16", 1),
        "lengths": ("uint16", 1),
        "scores": ("float32", 2),
    }
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    assert list(metadata) == ["adaptok"]
    info = json.loads(metadata["adaptok"])
    assert list(info)[:2] == ["version", "checksum"]
    assert (info["version"], info["step"], info["padding"], info["rate"]) == (1, 2, 1, "30/1")
    assert tuple(info["crop"]) == (0, 4, 20, 20)


def test_newer_versions_are_refused(tokens):
    data = tokens.to_bytes().replace(b'\\"version\\":1', b'\\"version\\":2')
    with pytest.raises(TokenFileError, match="install a newer adaptok"):
        VideoTokens.from_bytes(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lengths": [8]}, "expected \\(3,\\) for 5 frames"),
        ({"lengths": [9, 0, 0]}, "expected 0 to 8"),
        ({"ids": [1]}, "the sum of the lengths"),
        ({"scores": [[1.0]]}, "scores of shape"),
    ],
)
def test_contradicting_values_are_refused(tokens, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(tokens, **{name: np.array(value) for name, value in changes.items()})


def test_truncation_needs_scores_and_a_budget_in_range(tokens):
    assert tokens.truncate(8).tokens == 6
    for budget in (7, "8"):
        with pytest.raises(ValueError, match="expected 8 to 32 tokens per clip"):
            tokens.truncate(budget)
    with pytest.raises(ValueError, match="encode the video again with scores"):
        replace(tokens, scores=None).truncate(8)


def test_lengths_cannot_grow(tokens):
    with pytest.raises(ValueError, match="to the present length"):
        tokens.shorten(tokens.lengths + 1)
