"""A collection of videos and photographs, made small once, so that training decodes little."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import av
from PIL import Image

from adaptok.data.decoding import picture
from adaptok.data.manifests import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_entries
from adaptok.data.statistics import UNREADABLE, reason
from adaptok.utils.files import replacing
from adaptok.video.reading import VideoReader, decoded_frames
from adaptok.video.writing import VideoWriter

KEY_FRAMES = 32
"""Frames between key frames: a clip is entered at the last one before it."""
BROKEN_FILE = "broken.json"


@dataclass
class Resized:
    """How many files were written, how many were there already, and which cannot be read, with the reason."""

    written: int = 0
    kept: int = 0
    broken: dict[str, str] = field(default_factory=dict)


def plan(src: Path, dst: Path) -> list[tuple[Path, Path]]:
    """Every video and photograph of a folder, and its place in another: videos become MP4, photographs JPEG.

    Raises:
        ValueError: there is none, or one folder is within the other.
    """
    inside, outside = dst.resolve(), src.resolve()
    if inside.is_relative_to(outside) or outside.is_relative_to(inside):
        raise ValueError(f"{dst}: lies in {src}, or the other way round; choose a folder beside it")
    paths = [entry.path for entry in find_entries(src, VIDEO_SUFFIXES | IMAGE_SUFFIXES)]
    if not paths:
        raise ValueError(f"{src}: no video and no photograph in it")
    taken: set[Path] = set()
    pairs = []
    for path in paths:
        suffix = ".mp4" if path.suffix.lower() in VIDEO_SUFFIXES else ".jpg"
        target = dst / path.relative_to(src).with_suffix(suffix)
        if target in taken:  # a.avi beside a.mp4
            target = target.with_name(path.name + suffix)
        taken.add(target)
        pairs.append((path, target))
    return pairs


def resize_collection(
    src: str | Path,
    dst: str | Path,
    size: int,
    *,
    crf: int = 16,
    workers: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> Resized:
    """Write every video and photograph of `src` under the same name in `dst`, its short side at most `size` pixels.

    Frames are averaged over areas, keep their rate, and lose their sound; key frames are frequent. Files that are there
    are kept: started again, it goes on where it was stopped, and a file is whole or not there. Those that cannot be
    read are listed in `DST/broken.json`.

    Args:
        crf: quality of the H.264, 0 (lossless) to 51.
        workers: files at once; the number of processors if None.
        advance: called with the number of files just done.

    Raises:
        ValueError: `size` is below 16, or there is nothing to do.
    """
    if size < 16:
        raise ValueError(f"size {size}, expected 16 pixels or more")
    src, dst = Path(src), Path(dst)
    pairs = plan(src, dst)
    result = Resized()

    def one(path: Path, target: Path) -> None:
        if target.exists():
            result.kept += 1
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                _resize_video(path, target, size, crf) if target.suffix == ".mp4" else _resize_image(path, target, size)
                result.written += 1
            except UNREADABLE as error:
                result.broken[str(path)] = reason(error)
        if advance is not None:
            advance(1)

    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1)
    try:
        running = [pool.submit(one, *pair) for pair in pairs]
        wait(running, return_when=FIRST_EXCEPTION)
        for done in running:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
    with replacing(dst / BROKEN_FILE) as temporary:
        temporary.write_text(json.dumps(dict(sorted(result.broken.items())), indent=2), encoding="utf-8")
    return result


def _resize_video(path: Path, target: Path, size: int, crf: int) -> None:
    with (
        VideoReader(path, short_side=size) as reader,
        VideoWriter(target, reader.fps, crf=crf, key_frames=KEY_FRAMES, threads=1) as writer,
    ):
        for frame in reader:
            writer.write(frame)


def _resize_image(path: Path, target: Path, size: int) -> None:
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("there is no picture in it")
        frame = next(decoded_frames(container, container.streams.video[0], lambda _: None), None)
        if frame is None:
            raise ValueError("no picture could be decoded")
        rgb = picture(frame, size)
    with replacing(target) as temporary:
        Image.fromarray(rgb).save(temporary, format="jpeg", quality=95)
