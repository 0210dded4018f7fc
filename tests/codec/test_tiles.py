"""Whole frames as tiles: tokens, token files, streams, and clips that overlap in time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptok import VideoTokens


def frames_of(count: int, height: int = 18, width: int = 44) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("scope", ["video", "clip", "batch", "stream"])
def test_tiles_keep_the_size_and_the_budget(codec, scope):
    tokens = codec.encode(frames_of(21), 16, scope, fit="tile")
    assert (tokens.info.tiles, tokens.info.tile_blocks, tokens.info.clips) == (3, 11, 9)
    assert len(tokens.lengths) == 33
    assert tokens.block_tokens.sum() == tokens.tokens
    assert tokens.tokens <= 16 * 33 / 4 or scope == "stream"
    assert codec.decode(tokens).shape == (21, 18, 44, 3)


def test_each_tile_is_a_clip_of_its_own(codec):
    frames = frames_of(13)
    tokens = codec.encode(frames, fit="tile")
    geometry = tokens.info.geometry
    clips = geometry.split(geometry.apply(frames))  # [n, C, 13, 16, 16]
    ids = codec.encode_clips(clips[:, :, :8]).ids  # [n, 4, K]
    assert np.array_equal(tokens.padded()[: 4 * len(ids)], ids.transpose(0, 1).flatten(0, 1).numpy())
    assert codec.encode(frames, fit="tile", batch_size=1) == tokens
    assert np.array_equal(codec.decode(tokens, batch_size=1), codec.decode(tokens, batch_size=7))


def test_the_budget_spans_tiles(codec):
    frames = frames_of(8)
    tokens = codec.encode(frames, fit="tile")
    scores = np.tile(1 / np.arange(1, 5, dtype=np.float32), (len(tokens.lengths), 1))
    scores[::3] = 1e-6  # nothing to gain in the first tile
    flat = VideoTokens(tokens.ids, tokens.lengths, tokens.info, scores).truncate(20)
    assert flat.lengths[::3].max() == 2
    assert flat.lengths.sum() == 60


def test_streams_of_tiles(codec):
    frames = frames_of(21)
    whole = codec.encode(frames, 16, "stream", fit="tile")
    stream, receiver = codec.streaming(16, fit="tile"), codec.streaming(fit="tile", frame_size=(44, 18))
    blocks = [*stream.push(frames), *stream.flush()]
    assert np.array_equal(np.concatenate([block.lengths for block in blocks]), whole.lengths)
    assert np.array_equal(np.concatenate([block.ids for block in blocks]), whole.ids)
    decoded = np.concatenate([receiver.decode(block) for block in blocks])[:21]
    assert np.abs(decoded.astype(int) - codec.decode(whole)).max() <= 1
    with pytest.raises(ValueError, match="lengths of 1 tiles, expected 3"):
        receiver.decode(blocks[0].ids)


@pytest.mark.parametrize("fit", ["crop", "tile"])
def test_windows_overlap_in_time(codec, fit):
    frames = frames_of(21)
    tokens = codec.encode(frames, fit=fit, window_overlap=3)
    tiles = tokens.info.tiles
    assert (tokens.info.windows.count, tokens.info.tile_blocks) == (4, 4 + 4 + 4 + 3)
    geometry = tokens.info.geometry
    second = geometry.split(geometry.apply(frames[5:13]))
    ids = codec.encode_clips(second).ids.transpose(0, 1).flatten(0, 1).numpy()
    assert np.array_equal(tokens.padded()[4 * tiles : 8 * tiles], ids)
    assert codec.decode(tokens).shape == frames.shape
    assert codec.encode(frames, fit=fit, window_overlap=3, batch_size=9) == tokens
    with pytest.raises(ValueError, match="window overlap 5, expected 0 to 4 frames"):
        codec.encode(frames, window_overlap=5)
    with pytest.raises(ValueError, match="scope 'stream'"):
        codec.encode(frames, 16, "stream", window_overlap=2)


def test_files_with_tiles_have_a_version_of_their_own(codec, tmp_path):
    frames = frames_of(5)
    assert b'\\"version\\":1,' in codec.encode(frames).to_bytes()
    tokens = codec.encode(frames, 16, fit="tile", window_overlap=2)
    assert b'\\"version\\":2,' in tokens.to_bytes()
    tokens.save(tmp_path / "x.adaptok")
    loaded = VideoTokens.load(tmp_path / "x.adaptok")
    assert loaded == tokens
    assert torch.equal(*(torch.cat(list(codec.iter_decode_clips(each)), 1) for each in (tokens, loaded)))
