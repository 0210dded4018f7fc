"""Batches of separate videos give what each video gives alone; a batch that is mistaken for one video is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptok import LengthPolicy
from adaptok.codec.window_encoder import WindowEncoder
from adaptok.video.geometry import Geometry


def frames_of(count: int, height: int = 20, width: int = 28, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


VIDEOS = [frames_of(3), frames_of(11, seed=1), frames_of(8, 16, 16, 2), frames_of(5, 40, 18, 3)]


@pytest.mark.parametrize(("scope", "fit"), [("video", "tile"), ("clip", "crop"), ("batch", "tile"), ("stream", "crop")])
def test_each_video_is_encoded_as_alone(codec, scope, fit):
    batch = codec.encode_batch(VIDEOS, 16, scope, fit=fit)
    assert batch == [codec.encode(video, 16, scope, fit=fit) for video in VIDEOS]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_changes_nothing(codec, batch_size):
    options = {"fit": "tile", "window_overlap": 3}
    reference = [codec.encode(video, 16, **options) for video in VIDEOS]
    progress = []
    assert codec.encode_batch(VIDEOS, 16, batch_size=batch_size, progress=progress.append, **options) == reference
    assert sum(progress) == sum(map(len, VIDEOS))


def test_clips_of_several_videos_share_a_batch(codec, monkeypatch):
    sizes = []
    encode_clips = type(codec).encode_clips
    monkeypatch.setattr(
        type(codec), "encode_clips", lambda s, clips: sizes.append(len(clips)) or encode_clips(s, clips)
    )
    codec.encode_batch([frames_of(8, seed=i) for i in range(7)], 16, uniform=True)
    assert sizes == [4, 3]


def test_arrays_of_videos(codec, clips):
    """[B, 3, T, H, W] floats and [B, T, H, W, 3] bytes are B videos."""
    expected = [codec.encode(clip[None], 16) for clip in clips]
    assert codec.encode_batch(clips, 16) == codec.encode_batch(clips.numpy(), 16) == expected
    frames = (clips.permute(0, 2, 3, 4, 1) * 255).byte()
    assert codec.encode_batch(frames, 16) == [codec.encode(video.numpy(), 16) for video in frames]
    three = frames[:, :3]  # as many frames as colors
    assert [tokens.info.frames for tokens in codec.encode_batch(three, 16)] == [3, 3, 3]


def test_a_batch_is_not_one_video(codec, clips):
    with pytest.raises(
        ValueError, match=r"a batch of 3 videos of shape \(3, 3, 8, 16, 16\), expected one; .*encode_batch"
    ):
        codec.encode(clips)
    with pytest.raises(ValueError, match="a batch of 3 videos"):
        codec.encode_batch([clips, clips])
    joined = torch.cat(tuple(clips), 1)[None]  # as the message says
    assert codec.encode(joined, 16).info.frames == 24
    with pytest.raises(ValueError, match="expected a batch of videos"):
        codec.encode_batch(VIDEOS[0])
    with pytest.raises(ValueError, match=r"clip.mp4: a single path, expected a list of videos"):
        codec.encode_batch("clip.mp4")
    assert codec.encode_batch([]) == []


def test_an_encoder_keeps_the_order_of_windows(codec):
    """Windows of other lengths end a batch, and nothing is lost at the end."""
    encoder = WindowEncoder(codec, LengthPolicy(None), batch_size=3, keep_scores=False)
    geometry = Geometry("crop", 16, 16, 16)
    made = []
    for video, frames in enumerate((8, 8, 4, 4, 8)):
        made += encoder.push(video, torch.rand(1, 3, frames, 16, 16), frames, geometry)
    assert [index for index, _ in made] == [0, 1, 2, 3]
    made += encoder.flush()
    assert [(index, windows.frames, len(windows.ids)) for index, windows in made] == [
        (0, 8, 4),
        (1, 8, 4),
        (2, 4, 2),
        (3, 4, 2),
        (4, 8, 4),
    ]
    assert list(encoder.flush()) == []
