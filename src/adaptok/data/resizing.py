"""Downscaled copies of collections, which decode faster in training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import av
from PIL import Image

from adaptok.data.decoding import DECODING_ERRORS, decode, describe_error
from adaptok.data.manifests import IMAGE_SUFFIXES, VIDEO_SUFFIXES, find_entries
from adaptok.utils.files import replacing
from adaptok.video.container import reason_of
from adaptok.video.limits import DEFAULT_LIMITS, Limits
from adaptok.video.reading import VideoReader
from adaptok.video.writing import VideoWriter

KEY_FRAME_INTERVAL = 32
"""Frames between key frames. Decoding a clip starts at the last key frame before it."""
BROKEN_FILE = "broken.json"


@dataclass
class ResizeResult:
    """Numbers of files that were written and that existed already, and the reason for each that cannot be read."""

    written: int = 0
    kept: int = 0
    broken: dict[str, str] = field(default_factory=dict)


def resize_collection(
    src: str | Path,
    dst: str | Path,
    size: int,
    *,
    crf: int = 16,
    workers: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[int], None] | None = None,
) -> ResizeResult:
    """Copy all videos and photographs of `src` to `dst`, with a short side of at most `size` pixels.

    Frames are averaged over areas and keep their rate. Sound is dropped. Files appear under their final name when they
    are complete and existing files are kept, so an interrupted call can be repeated. Files that cannot be read are
    listed in `dst/broken.json`.

    Args:
        crf: Constant rate factor of the H.264 encoder, 0 (lossless) to 51.
        workers: Number of files processed at once. None is the number of processors.
        limits: Largest frames and longest videos that are read. Others are listed as broken.
        progress: Called with the number of files just processed.

    Raises:
        ValueError: `size` is below 16, there are no files, or one folder lies in the other.
        OSError: A copy cannot be written, for example because the disk is full. Finished copies are kept.
    """
    if size < 16:
        raise ValueError(f"size {size}, expected 16 pixels or more")
    src, dst = Path(src), Path(dst)
    pairs = _plan_copies(src, dst)
    result = ResizeResult()

    def copy(path: Path, target: Path) -> None:
        if target.exists():
            result.kept += 1
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                _copy(path, target, size, crf, limits)
                result.written += 1
            except _BrokenSource as error:
                result.broken[str(path)] = str(error)
        if progress is not None:
            progress(1)

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        list(pool.map(copy, *zip(*pairs, strict=True)))  # raises the first error, and cancels the remaining calls
    with replacing(dst / BROKEN_FILE) as temporary:
        temporary.write_text(json.dumps(dict(sorted(result.broken.items())), indent=2), encoding="utf-8")
    return result


def _plan_copies(src: Path, dst: Path) -> list[tuple[Path, Path]]:
    """Pair every video and photograph with the path of its copy. Videos become MP4, photographs JPEG."""
    if dst.resolve().is_relative_to(src.resolve()) or src.resolve().is_relative_to(dst.resolve()):
        raise ValueError(f"{dst} and {src}: one folder lies in the other; choose separate folders")
    paths = [entry.path for entry in find_entries(src, VIDEO_SUFFIXES | IMAGE_SUFFIXES)]
    if not paths:
        raise ValueError(f"{src}: contains no video and no photograph")
    originals: dict[Path, Path] = {}
    for path in paths:
        suffix = ".mp4" if path.suffix.lower() in VIDEO_SUFFIXES else ".jpg"
        target = dst / path.relative_to(src).with_suffix(suffix)
        if target in originals:  # for example a.avi beside a.mp4
            target = target.with_name(path.name + suffix)
        originals[target] = path
    return [(path, target) for target, path in originals.items()]


class _BrokenSource(Exception):
    """A file cannot be read. The message is the reason. Errors of writing a copy are other exceptions."""


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except DECODING_ERRORS as error:
        raise _BrokenSource(describe_error(error)) from error


def _copy(path: Path, target: Path, size: int, crf: int, limits: Limits) -> None:
    """Write the copy of a file.

    Raises:
        _BrokenSource: The file cannot be read.
        OSError, VideoError: The copy cannot be written.
    """
    if target.suffix != ".mp4":
        with _reading():
            frame = decode(path, 1, size, limits=limits).frames[0]
        data = BytesIO()  # PIL does not notice that the end of a file cannot be written
        Image.fromarray(frame).save(data, format="jpeg", quality=95)
        with replacing(target) as temporary:
            temporary.write_bytes(data.getbuffer())
        return
    with _reading():
        reader = VideoReader(path, short_side=size, limits=limits)
    with reader:
        try:
            _write_video(target, reader, crf)
        except av.FFmpegError as error:
            raise OSError(f"{target}: cannot be written ({reason_of(error)}); free space and repeat") from None


def _write_video(target: Path, reader: VideoReader, crf: int) -> None:
    with VideoWriter(target, reader.fps, crf=crf, key_frames=KEY_FRAME_INTERVAL, threads=1) as writer:
        while True:
            with _reading():
                frame = next(reader, None)
            if frame is None:
                break
            writer.write(frame)
