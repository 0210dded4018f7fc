"""Frame counts, frame rates and sizes of the files of a collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from adaptok.data.decoding import DECODING_ERRORS, describe_error, open_video_stream
from adaptok.data.manifests import IMAGE_SUFFIXES, Entry
from adaptok.video.container import DEFAULT_FPS, decoded_frames, describe
from adaptok.video.images import FolderFrames

MIN_DECODED_FRACTION = 0.9
"""Smallest accepted fraction of the frames expected from a duration, for containers that store no frame count."""
_THREADS = 8
_MAX_PART = 64  # files that a thread opens one after the other


def collect_statistics(
    entries: Iterable[Entry], progress: Callable[[int], None] | None = None, thorough: bool = False
) -> list[Entry]:
    """Open files and fill in their frame count, frame rate and size, or the error of those that cannot be read.

    Entries that already have a frame count or an error, for example from an index, are not opened again.

    Args:
        progress: Called with the number of files just processed.
        thorough: Decode every frame. Counts are then exact, and a file with any damage is reported as unreadable.

    Returns:
        The entries, in the same order.
    """

    def fill(part: list[Entry]) -> list[Entry]:
        known = (entry.error is not None or entry.frames is not None for entry in part)
        filled = [
            entry if is_known and not thorough else _inspect(entry, thorough)
            for entry, is_known in zip(part, known, strict=True)
        ]
        if progress is not None:
            progress(len(part))
        return filled

    entries = list(entries)
    size = min(_MAX_PART, max(1, len(entries) // (4 * _THREADS)))  # a task for every file would take gigabytes
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(fill, (entries[start : start + size] for start in range(0, len(entries), size)))
        return [entry for part in parts for entry in part]


def _inspect(entry: Entry, thorough: bool) -> Entry:
    try:
        if not entry.path.exists():
            return replace(entry, frames=None, error="no such file")
        if entry.path.is_dir():
            return _inspect_frames(entry)
        with open_video_stream(entry.path) as (container, stream):
            filled = _read_statistics(entry, container, stream, thorough)
    except DECODING_ERRORS as error:
        return replace(entry, frames=None, error=describe_error(error))
    return replace(filled, frames=1, fps=None) if entry.path.suffix.lower() in IMAGE_SUFFIXES else filled


def _inspect_frames(entry: Entry) -> Entry:
    """Inspect a folder of frames, which has no rate of its own."""
    frames = FolderFrames(entry.path)
    height, width, _ = frames[0].shape
    return replace(entry, frames=len(frames), fps=None, width=width, height=height)


def _read_statistics(entry: Entry, container: InputContainer, stream: VideoStream, thorough: bool) -> Entry:
    damage: list[str] = []
    frames = decoded_frames(container, stream, damage.append)
    first = next(frames, None)
    if first is None:
        raise ValueError("no frame could be decoded")
    info = describe(entry.path, container, stream, first)
    fps = stream.average_rate or DEFAULT_FPS
    count = stream.frames or round(float(container.duration or 0) / av.time_base * fps)
    if thorough:
        decoded = 1 + sum(1 for _ in frames)
        if damage or decoded < (stream.frames - 1 if stream.frames else MIN_DECODED_FRACTION * count):
            detail = f": {damage[0]}" if damage else ""
            raise ValueError(f"damaged, {decoded} of {count} frames could be decoded{detail}")
        count = decoded
    return replace(entry, frames=max(1, count), fps=fps, width=info.width, height=info.height, error=None)
