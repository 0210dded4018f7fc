"""Small videos to read."""

from __future__ import annotations

import numpy as np

from adaptok.video.writing import VideoWriter


def write_video(path, count, size=(48, 64), fps=30, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(count).integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    with VideoWriter(path, fps, **options) as writer:
        for index in range(count):
            writer.write(np.roll(noise, index, 1).repeat(8, 0).repeat(8, 1))
