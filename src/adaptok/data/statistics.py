"""What is in the files of a collection, each opened once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import av

from adaptok.data.manifests import IMAGE_SUFFIXES, Entry
from adaptok.video.reading import decoded_frames

UNREADABLE = (av.FFmpegError, OSError, ValueError)
"""What opening and decoding a broken file raises."""
_THREADS = 8
_MOSTLY = 0.9  # of the frames that a duration promises, where the file has no count


def survey(
    entries: Iterable[Entry], advance: Callable[[int], None] | None = None, thorough: bool = False
) -> list[Entry]:
    """The entries with frames, rate and size, or the error of those that cannot be read; in the same order.

    Those that an index knows already are not opened again.

    Args:
        advance: called with the number of files just done.
        thorough: decode every frame: counts are exact, and a file that is damaged anywhere is unreadable.
    """

    def look(entry: Entry) -> Entry:
        known = entry.error is not None or entry.frames is not None
        found = entry if known and not thorough else _look(entry, thorough)
        if advance is not None:
            advance(1)
        return found

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(look, entries))


def reason(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _look(entry: Entry, thorough: bool) -> Entry:
    try:
        with av.open(str(entry.path)) as container:
            if not container.streams.video:
                raise ValueError("there is no picture in it")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            damage: list[str] = []
            frames = decoded_frames(container, stream, damage.append)
            first = next(frames, None)
            if first is None:
                raise ValueError("no frame could be decoded")
            width, height = first.width, first.height
            if round(first.rotation / 90) % 2:
                width, height = height, width
            rate = stream.average_rate or Fraction(25)
            count = stream.frames or round(float(container.duration or 0) / av.time_base * rate)
            if thorough:
                decoded = 1 + sum(1 for _ in frames)
                if damage or decoded < (stream.frames - 1 if stream.frames else _MOSTLY * count):
                    told = f": {damage[0]}" if damage else ""
                    raise ValueError(f"damaged, {decoded} of {count} frames could be decoded{told}")
                count = decoded
    except UNREADABLE as error:
        return replace(entry, frames=None, error=reason(error))
    photograph = entry.path.suffix.lower() in IMAGE_SUFFIXES
    return replace(
        entry,
        frames=1 if photograph else max(1, count),
        rate=None if photograph else rate,
        width=width,
        height=height,
        error=None,
    )
