"""Reading in threads, ahead of the model."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, Queue
from typing import TypeVar

from adaptok.video.sources import Frame, FrameSource

FRAMES_AHEAD = 64
"""Frames of each video that are held in memory."""
T = TypeVar("T")
OpenVideo = Callable[[Path], AbstractContextManager[FrameSource]]


class ReadAhead:
    """Context manager that yields the frames of one video, which a thread reads.

    Args:
        path: Path of the video.
        open_video: Opens it.
    """

    def __init__(self, path: Path, open_video: OpenVideo) -> None:
        self._items: Queue[FrameSource | Frame | BaseException | None] = Queue(FRAMES_AHEAD)
        self._stopped = False
        self._thread = threading.Thread(target=self._read, args=(path, open_video), daemon=True)
        self._thread.start()

    def _read(self, path: Path, open_video: OpenVideo) -> None:
        try:
            with open_video(path) as source:
                self._items.put(source)
                for frame in source.frames:
                    self._items.put(frame)
                    if self._stopped:
                        return
            self._items.put(None)
        except BaseException as error:  # raised where the frames are used
            self._items.put(error)

    def __enter__(self) -> FrameSource:
        source = self._items.get()
        if isinstance(source, BaseException):
            raise source
        assert isinstance(source, FrameSource)
        return replace(source, frames=self._frames())

    def _frames(self) -> Iterator[Frame]:
        while (item := self._items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            assert not isinstance(item, FrameSource)
            yield item

    def __exit__(self, *error: object) -> None:
        self._stopped = True
        while self._thread.is_alive():  # a full queue would keep the thread
            with suppress(Empty):
                self._items.get(timeout=0.01)


class ReadAheadVideos:
    """Context manager that reads several videos ahead, in order.

    Args:
        paths: Videos in the order in which they are taken.
        open_video: Opens one.
        workers: Number of videos that are read at once.
    """

    def __init__(self, paths: Sequence[Path], open_video: OpenVideo, workers: int) -> None:
        self._paths, self._open, self._workers = iter(paths), open_video, workers
        self._waiting: deque[ReadAhead] = deque()

    def __enter__(self) -> ReadAheadVideos:
        return self

    def take(self) -> ReadAhead:
        """Return the next video, and begin to read those after it."""
        while len(self._waiting) < self._workers and (path := next(self._paths, None)) is not None:
            self._waiting.append(ReadAhead(path, self._open))
        return self._waiting.popleft()

    def __exit__(self, *error: object) -> None:
        for reader in self._waiting:
            reader.__exit__()


@contextmanager
def read_ahead(items: Iterable[T], count: int) -> Iterator[Iterator[T]]:
    """Iterate over items that a thread makes, up to `count` ahead of their use.

    An error of `items` is raised where the item would be used. Leaving the context stops the thread after the item that
    it is making.
    """
    made: Queue[tuple[T] | BaseException | None] = Queue(count)
    stopped = False

    def make() -> None:
        try:
            for item in items:
                made.put((item,))
                if stopped:
                    return
            made.put(None)
        except BaseException as error:
            made.put(error)

    def use() -> Iterator[T]:
        while (entry := made.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    try:
        yield use()
    finally:
        stopped = True
        while thread.is_alive():  # a full queue would keep the thread
            with suppress(Empty):
                made.get(timeout=0.01)
