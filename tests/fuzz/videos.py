"""Videos: damaged files of several containers, streams of y4m, and folders of frames."""

from __future__ import annotations

import io
import random
import re
import shutil
from pathlib import Path

import av
import numpy as np
from PIL import Image

from adaptok.video.container import VideoError
from adaptok.video.sources import FrameSource, open_frames, open_stream
from tests.fuzz.commands import command
from tests.fuzz.harness import Failure, Target, attempt
from tests.fuzz.mutations import damaged, damaged_near
from tests.fuzz.originals import FORMATS
from tests.helpers.videos import write_video

COUNT = 24
"""Frames of every video that is written here."""
MODEL = FORMATS / "model"
WRITTEN = (
    ("mpeg4.avi", "mpeg4", "yuv420p"),
    ("motion.mov", "mjpeg", "yuvj420p"),
    ("fragments.mp4", "mpeg4", "yuv420p"),
    ("transport.ts", "mpeg2video", "yuv420p"),
    ("animation.gif", "gif", "rgb8"),
    ("raw.y4m", "wrapped_avframe", "yuv420p"),
)
"""Name, codec and pixel format of videos of other containers."""
TIMES = (b"stts", b"ctts", b"mdhd", b"mvhd", b"tkhd", b"elst")
NAMES = (*TIMES, b"stsz", b"stsc", b"stco", b"stsd", b"avcC", b"FRAME")
"""Atoms of MP4 with times, sizes and offsets, and the mark of a frame of y4m."""
MAX_FRAMES = 100_000
"""Frames after which reading stops: more than a damaged file of a few kilobytes may give."""


class Videos(Target):
    """A video is refused, or read; a warning says how many frames there are if the file states a larger number.

    Matroska, MPEG-TS, GIF, y4m and fragmented MP4 state no number: frames that damage removes without an error of the
    decoder cannot be noticed there.
    """

    name = "videos"

    def prepare(self, seeds: Path) -> None:
        write_video(seeds / "h264.mp4", COUNT)
        write_video(seeds / "matroska.mkv", COUNT)
        frames = [np.roll(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3), n, 1) for n in range(COUNT)]
        for name, codec, kind in WRITTEN:
            options = {"movflags": "frag_keyframe+empty_moov"} if name == "fragments.mp4" else {}
            with av.open(str(seeds / name), "w", options=options) as container:
                stream = container.add_stream(codec, rate=25)
                stream.width, stream.height, stream.pix_fmt = 64, 48, kind
                for frame in frames:
                    picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=kind)
                    container.mux(stream.encode(picture))
                container.mux(stream.encode())
        (seeds / "frames").mkdir()
        for number, frame in enumerate(frames[:6]):
            Image.fromarray(frame).save(seeds / "frames" / f"{number}.{('png', 'jpg', 'webp', 'bmp')[number % 4]}")

    def open(self, seeds: Path) -> None:
        self.seeds = seeds
        self.names = sorted(path.name for path in seeds.iterdir())
        self.data = {path.name: path.read_bytes() for path in sorted(seeds.rglob("*")) if path.is_file()}
        self.expected = {name: self.count(seeds / name)[0] for name in self.names}
        if any(count < COUNT for name, count in self.expected.items() if name != "frames"):
            raise ValueError(f"undamaged videos of {self.expected} frames")

    def run(self, rng: random.Random, folder: Path) -> None:
        name = rng.choice(self.names)
        path = folder / name
        if name == "frames":
            shutil.copytree(self.seeds / name, path)
            image = rng.choice(sorted(path.iterdir()))
            image.write_bytes(damaged(rng, image.read_bytes(), list(self.data.values())))
        else:
            ways = (damaged, lambda rng, data: damaged_near(rng, data, NAMES))
            path.write_bytes(rng.choice(ways)(rng, self.data[name]))
        if rng.random() < 0.1:
            command("info", path)
        if rng.random() < 0.1:
            command("encode", path, folder / "x.adaptok", "--model", MODEL, "--device", "cpu")
        count, warning = attempt(VideoError, self.count, path, rng.random() < 0.5)
        if count > MAX_FRAMES:
            raise Failure(f"more than {MAX_FRAMES} frames from {self.expected[name]}")
        if count < min(declared(path), self.expected[name]) - 1 and not re.search(
            r"\d+ (of \d+ )?frames", warning or ""
        ):
            raise Failure(f"{count} of {self.expected[name]} frames, with the warning {warning!r}")

    def count(self, path: Path, streamed: bool = True) -> tuple[int, str | None]:
        """Number of frames, and the warning."""
        if path.suffix == ".y4m" and streamed:
            source = open_stream(io.BytesIO(path.read_bytes()))
            return _drain(source), source.warning
        with open_frames(path, threads=1) as source:
            return _drain(source), source.warning


def declared(path: Path) -> int:
    """Number of frames that a file states, which may be damaged, too; 0 if it states none."""
    try:
        with av.open(str(path)) as container:
            return container.streams.video[0].frames
    except (av.FFmpegError, IndexError, ValueError):
        return 0


def _drain(source: FrameSource) -> int:
    count = 0
    for _ in source.frames:
        count += 1
        if count > MAX_FRAMES:
            break
    return count
