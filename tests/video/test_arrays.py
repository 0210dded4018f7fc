"""Arrays and tensors in every layout and type give the same frames; ambiguous ones are refused with the remedy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adaptok.video.sources import open_frames
from tests.helpers.raw_videos import numbered_frames

FRAMES = numbered_frames(4, 8, 10)
FLOATS = FRAMES.astype(np.float32) / 255


def read(video):
    with open_frames(video) as source:
        frames = list(source.frames)
        assert (source.width, source.height, source.total) == (10, 8, len(frames))
        return np.stack(frames)


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_layouts_and_types(make):
    channels_first, clips = FRAMES.transpose(0, 3, 1, 2), FRAMES.reshape(2, 2, 8, 10, 3).transpose(0, 4, 1, 2, 3)
    for array in (FRAMES, channels_first, clips):
        assert np.array_equal(read(make(array)), FRAMES)
        frames = read(make(array.astype(np.float64) / 255))
        assert frames.dtype == np.float32
        assert np.allclose(frames, FLOATS)


def test_other_types_and_strides():
    assert np.allclose(read(torch.from_numpy(FLOATS).bfloat16()), FLOATS, atol=0.01)
    assert np.allclose(read(FLOATS.astype(np.float16)), FLOATS, atol=0.001)
    assert np.array_equal(read(FRAMES[::-1, :, ::-1]), FRAMES[::-1, :, ::-1])
    assert np.array_equal(read(torch.from_numpy(FRAMES).requires_grad_(False)), FRAMES)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 3, 8, 3), np.uint8), "both layouts of frames fit, so give it as clips"),
        (np.zeros((8, 10, 3), np.uint8), r"a single frame needs the time axis, array\[None\]"),
        (np.zeros((4, 8, 10, 4), np.uint8), "leave out the fourth channel"),
        (np.zeros((4, 1, 8, 10), np.uint8), "repeat gray values three times"),
        (np.zeros((3, 5, 8, 10), np.uint8), r"give \[3, T, H, W\] as clips"),
        (np.zeros((1, 4, 3, 8, 10), np.uint8), "move the channels to the second axis"),
        (np.zeros((0, 8, 10, 3), np.uint8), "it is empty"),
        (np.zeros(5, np.uint8), r"of shape \(5,\), expected RGB frames"),
        (np.zeros((4, 8, 10, 3), np.int64), r"of type int64, expected uint8 .* convert 8-bit values with astype"),
        (np.zeros((4, 8, 10, 3), bool), "of type bool, expected uint8"),
        (FRAMES.astype(np.float32), r"from 10 to \d+, expected \[0, 1\]; divide 8-bit values by 255"),
        (FLOATS * 2 - 1, r"expected \[0, 1\]; rescale \[-1, 1\] by \(x \+ 1\) / 2"),
        (FLOATS * np.nan, "NaN or infinite pixel values"),
    ],
)
def test_what_is_refused(array, message):
    for video in (array, torch.from_numpy(array)):
        with pytest.raises(ValueError, match=message):
            open_frames(video).__enter__()
