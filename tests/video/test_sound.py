"""Sound is copied beside new frames, from the right time and for their length."""

from __future__ import annotations

import av
import numpy as np
import pytest

from adaptok.video.container import VideoError
from adaptok.video.reading import probe
from adaptok.video.sound import Sound, open_sound
from adaptok.video.writing import VideoWriter
from tests.helpers.videos import write_sounding_video, write_video


def loudness(path) -> np.ndarray:
    """Mean square of the sound in each tenth of a second."""
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)])
    return (samples.astype(float) ** 2)[: len(samples) // 800 * 800].reshape(-1, 800).mean(1)


@pytest.mark.parametrize(("codec", "suffix"), [("aac", ".mp4"), ("pcm_s16le", ".mkv")])
def test_sound_stays_in_step(tmp_path, codec, suffix):
    """The first second of the source is silent, the second one is not."""
    source, out = tmp_path / f"in{suffix}", tmp_path / "out.mp4"
    write_sounding_video(source, codec)
    with VideoWriter(out, 10, sound=Sound(source, 0.5)) as writer:
        writer.write(np.zeros((10, 48, 64, 3), np.uint8))
    assert probe(out).audio
    heard = loudness(out)
    assert 9 <= len(heard) <= 12
    assert heard[:4].max() < 0.01 * heard[7:9].min()


def test_files_without_sound(tmp_path):
    write_video(tmp_path / "silent.mp4", 3)
    with pytest.raises(VideoError, match="no sound"):
        Sound(tmp_path / "silent.mp4")
    assert open_sound(tmp_path / "missing.mp4") is None
