"""Cutting frames into clips, at any stride."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptok.video.clips import iter_clips, pad_clip


def frames(count):
    return (np.full((2, 3, 3), index, np.uint8) for index in range(count))


def to_pixels(frame):
    assert frame.shape == (1, 2, 3, 3)
    return torch.from_numpy(frame).permute(3, 0, 1, 2).float()


def cut(count, length, **options):
    clips = list(iter_clips(frames(count), to_pixels, length, **options))
    assert all(clip.shape[0] == 3 and clip.shape[2:] == (2, 3) for _, clip in clips)
    return [(start, clip[0, :, 0, 0].int().tolist()) for start, clip in clips]


@pytest.mark.parametrize(
    ("count", "options", "expected"),
    [
        (8, {}, [(0, [0, 1, 2, 3]), (4, [4, 5, 6, 7])]),
        (6, {}, [(0, [0, 1, 2, 3]), (4, [4, 5])]),
        (3, {}, [(0, [0, 1, 2])]),
        (0, {}, []),
        (6, {"stride": 2}, [(0, [0, 1, 2, 3]), (2, [2, 3, 4, 5]), (4, [4, 5])]),
        (8, {"stride": 6}, [(0, [0, 1, 2, 3]), (6, [6, 7])]),
        (6, {"stride": 6}, [(0, [0, 1, 2, 3])]),
        (9, {"max_clips": 1}, [(0, [0, 1, 2, 3])]),
        (3, {"max_clips": 1}, [(0, [0, 1, 2])]),
    ],
)
def test_clips_start_every_stride_frames(count, options, expected):
    assert cut(count, 4, **options) == expected


def test_no_frame_is_read_after_the_last_requested_clip():
    source = frames(9)
    assert len(list(iter_clips(source, to_pixels, 4, max_clips=1))) == 1
    assert next(source)[0, 0, 0] == 4


def test_padding_repeats_the_last_frame():
    clip = torch.rand(3, 2, 4, 5)
    padded = pad_clip(clip, 4)
    assert padded.shape == (3, 4, 4, 5)
    assert torch.equal(padded[:, :2], clip)
    assert torch.equal(padded[:, 2:], clip[:, 1:].expand(-1, 2, -1, -1))
    assert pad_clip(clip, 2) is clip
