"""Small videos to read."""

from __future__ import annotations

import av
import numpy as np

from adaptok.video.writing import VideoWriter


def write_video(path, count, size=(48, 64), fps=30, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(count).integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    with VideoWriter(path, fps, **options) as writer:
        for index in range(count):
            writer.write(np.roll(noise, index, 1).repeat(8, 0).repeat(8, 1))


def write_sounding_video(path, codec="aac"):
    """Write 20 black frames at 10 per second, with a second of silence and a second of sound."""
    sound = np.sin(np.arange(16000) * 0.5) * (np.arange(16000) >= 8000) * 0.5
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(codec, rate=8000, layout="mono")
        for _ in range(20):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode())
        for start in range(0, 16000, 800):
            frame = av.AudioFrame.from_ndarray(
                sound[None, start : start + 800].astype(np.float32), format="fltp", layout="mono"
            )
            frame.rate, frame.pts = 8000, start
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
