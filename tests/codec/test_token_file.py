"""Token files: format, damage, truncation, and values that contradict each other."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save

from adaptok import TokenFileError, VideoTokens
from adaptok.codec.token_file import KEY, VERSION_2_FIELDS


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
        ({"lengths": [1.9, 0, 0], "ids": [1]}, "lengths of type float64, expected whole numbers"),
        ({"lengths": [1, 0, 0], "ids": [65543]}, "ids 65543 to 65543, expected 0 to .*, the codebook's"),
        ({"lengths": [1, 0, 0], "ids": [-1]}, "ids -1 to -1, expected 0 to .*, the codebook's"),
        ({"lengths": [1, 0, 0], "ids": [7.0]}, "ids of type float64, expected whole numbers"),
    ],
)
def test_contradicting_values_are_refused(tokens, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(tokens, **{name: np.array(value) for name, value in changes.items()})


def test_only_whole_numbers_are_kept_or_decoded(codec, tokens):
    with pytest.raises(ValueError, match="lengths of type float64"):
        tokens.shorten(tokens.lengths - 0.1)
    with pytest.raises(ValueError, match="ids of type float64"):
        codec.streaming().decode(np.array([1.9]))


def forged(tokens: VideoTokens, fields: dict | None = None, **tensors: np.ndarray) -> bytes:
    """Return a token file with a valid checksum and with other metadata or tensors."""
    contents = {"ids": tokens.ids, "lengths": tokens.lengths.astype(np.uint16), **tensors}
    document = {"version": 1, "checksum": "0" * 64, **tokens.info.model_dump(by_alias=True, exclude_defaults=True)}
    document |= {"version": 2 if VERSION_2_FIELDS & (fields or {}).keys() else 1, **(fields or {})}
    blank = save(contents, metadata={KEY: json.dumps(document)})
    return blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode(), 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rate": "1e1000000000"}, "rate '1e1000000000', expected a positive fraction of at most 1000"),
        ({"rate": "9" * 10**6}, "rate '9{40}…', expected"),
        ({"rate": "30/0"}, "rate '30/0'"),
        ({"frames": 10**400}, "frames"),
        ({"frames": 2**31 - 1}, "lengths of shape \\(3,\\), expected \\(1073741824,\\)"),
        ({"width": 10**10}, "width"),
        ({"fit": "tile", "width": 2**31 - 1, "short_side": 16, "tile_overlap": 0}, "tiles, expected at most 65535"),
        ({"fit": "tile", "size": 1, "short_side": 2**31 - 1, "tile_overlap": 0}, "tiles, expected at most 65535"),
        ({"block_frames": 2**31 - 1, "clip_blocks": 2**31 - 1, "window_overlap": 2**70}, "window overlap"),
    ],
)
@pytest.mark.parametrize("codec", [False], indirect=True)
def test_hostile_numbers_are_refused_at_once(tokens, fields, message):
    assert VideoTokens.from_bytes(forged(tokens)).ids.tolist() == tokens.ids.tolist()
    with pytest.raises(TokenFileError, match=message) as error:
        VideoTokens.from_bytes(forged(tokens, fields))
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("name", ["ids", "lengths", "scores"])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@pytest.mark.parametrize("codec", [False], indirect=True)
def test_tensors_of_other_types_are_refused(tokens, name, dtype):
    data = forged(tokens, **{name: getattr(tokens, name).astype(dtype)})
    with pytest.raises(TokenFileError, match=f"{name} of type {dtype.__name__}, expected"):
        VideoTokens.from_bytes(data)


def test_only_the_beginning_of_other_files_is_read(tmp_path):
    path = tmp_path / "huge.adaptok"
    for head in (b"\0" * 8, (2**40).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"{}"):
        path.write_bytes(head)
        os.truncate(path, 2**40)  # a sparse file, of which nothing is stored
        with pytest.raises(TokenFileError, match="not a token file"):
            VideoTokens.load(path)


def test_decoding_takes_the_memory_of_a_few_clips(codec, tokens):
    count = 400_000  # of which padded ids would take more than 25 MB
    info = tokens.info.model_copy(update={"frames": 2 * count})
    empty = VideoTokens([], np.zeros(count, int), info)
    clips = codec.iter_decode(empty)
    next(clips)
    tracemalloc.start()
    next(clips)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


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
