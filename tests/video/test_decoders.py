"""Decoders with the interface of torchcodec, by a stand-in for it and by itself where it is installed."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adaptok.video.reading import read_video
from adaptok.video.sources import open_frames
from tests.helpers.raw_videos import numbered_frames, numbers
from tests.helpers.videos import write_video

FRAMES = numbered_frames(6)


@dataclass
class Frame:
    """What `get_frame_at` of torchcodec returns."""

    data: torch.Tensor
    pts_seconds: float
    duration_seconds: float


class Plain:
    """Decoder that states only a rate."""

    def __init__(self, frames=FRAMES, order="NCHW", fps=10.0):
        self.metadata = SimpleNamespace(average_fps=fps)
        self.frames = torch.from_numpy(frames)
        if order == "NCHW":
            self.frames = self.frames.permute(0, 3, 1, 2)
        self.read = []

    def __len__(self):
        return len(self.frames)

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(index)
        self.read.append(index)
        return self.frames[index]


class Timed(Plain):
    """Decoder that states times as well, with a pause after the third frame, and a first frame that is not at 0."""

    TIMES = (1.0, 1.1, 1.2, 1.5, 1.6, 1.7)

    def get_frame_at(self, index):
        return Frame(self[index], self.TIMES[index], 0.1)


def read(decoder, **options):
    with open_frames(decoder, **options) as source:
        frames = list(source.frames)
    assert source.total is not None
    return numbers(np.stack(frames), FRAMES), source


@pytest.mark.parametrize("order", ["NCHW", "NHWC"])
def test_frames_of_a_decoder(order):
    shown, source = read(Plain(order=order))
    assert shown == list(range(6))
    assert (source.width, source.height, source.fps, source.total) == (64, 48, 10, 6)
    assert read(Plain(order=order), fps=20)[0] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert read(Plain(order=order), fps=5)[0] == [0, 2, 4]
    with open_frames(Plain(FRAMES / 255, order)) as source:
        assert numbers(np.stack(list(source.frames)) * 255, FRAMES) == list(range(6))


def test_times_of_a_decoder():
    assert read(Timed())[0] == [0, 1, 2, 2, 2, 3, 4, 5]
    assert read(Timed(), start=0.3, stop=0.6)[0] == [2, 2, 3]
    assert read(Timed(), fps=20, start=0.5)[0] == [3, 3, 4, 4, 5, 5]


def test_earlier_frames_are_skipped():
    decoder = Plain(numbered_frames(60), fps=10.0)
    with open_frames(decoder, start=5.0) as source:
        assert len(list(source.frames)) == 10
    assert len(set(decoder.read)) < 20


@pytest.mark.parametrize(
    ("decoder", "options", "message"),
    [
        (Plain(fps=None), {}, "average_fps is None, expected the frames per second"),
        (Plain(FRAMES[:0]), {}, "a decoder without frames"),
        (Plain(FRAMES * 2.0), {}, r"expected \[0, 1\]"),
        (Plain(), {"start": 5.0}, "no frame from 5 seconds on"),
    ],
)
def test_bad_decoders(decoder, options, message):
    with pytest.raises(ValueError, match=message):
        read(decoder, **options)


def test_torchcodec(tmp_path):
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:  # it is there without the libraries of FFmpeg
        pytest.skip(f"torchcodec cannot be imported ({type(error).__name__})")
    write_video(tmp_path / "x.mp4", 12)
    frames, rate = read_video(tmp_path / "x.mp4")
    with open_frames(VideoDecoder(tmp_path / "x.mp4")) as source:
        assert (source.width, source.height, source.fps, source.total) == (64, 48, rate, 12)
        assert np.abs(np.stack(list(source.frames)).astype(int) - frames).mean() < 3
