"""Jobs of the visitors of the demo: progress, cancellation, and temporary files."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from adaptok.codec.token_file import VideoTokens

Show = Callable[[float, str], None]
"""Called with the finished fraction of a job, from 0 to 1, and a description of what is being done."""
MAX_SESSIONS = 64
"""Sessions kept at a time. When there are more, the oldest one is closed."""

Cached = TypeVar("Cached")


class Cancelled(Exception):
    """The visitor cancelled the job, or left the page."""


class Job:
    """A computation that reports its progress and can be cancelled from another thread."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self.show: Show = lambda fraction, text: None

    def cancel(self) -> None:
        """Ask the job to stop. It stops at its next report of progress."""
        self._cancelled.set()

    def check(self) -> None:
        """Raise Cancelled if the job should stop."""
        if self._cancelled.is_set():
            raise Cancelled

    def stage(
        self, title: str, total: int | None, unit: str = "frames", *, start: float = 0.0, stop: float = 1.0
    ) -> Callable[[int], None]:
        """Begin a stage of the job.

        Args:
            title: Description, such as "Encoding".
            total: Number of units; None if unknown.
            unit: Name of the units.
            start, stop: Fractions of the job that are finished before and after this stage.

        Returns:
            Function to call with the number of units that have just been finished. It raises Cancelled if the job
            should stop.
        """
        done = 0
        self.check()
        self.show(start, title)

        def advance(count: int) -> None:
            nonlocal done
            self.check()
            done += count
            fraction = min(1.0, done / total) if total else 0.0
            counted = f"{done} of {total} {unit}" if total else f"{done} {unit}"
            self.show(start + (stop - start) * fraction, f"{title}: {counted}")

        return advance


class Latest(Generic[Cached]):
    """The last value that was computed for a key."""

    def __init__(self) -> None:
        self._entry: tuple[object, Cached] | None = None

    def get(self, key: object, compute: Callable[[], Cached]) -> Cached:
        """Return the value for a key. It is computed unless it is that of the last call."""
        if self._entry is None or self._entry[0] != key:
            self._entry = None
            self._entry = (key, compute())
        return self._entry[1]

    def holds(self, key: object) -> bool:
        """Whether the value for this key is known."""
        return self._entry is not None and self._entry[0] == key


class Session:
    """One visitor: the jobs, the files of the last results, and the tokens of the last clip."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.encodings: Latest[VideoTokens] = Latest()
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def begin(self, name: str) -> Job:
        """Register a job, which `cancel` reaches from now on."""
        self._jobs[name] = Job()
        return self._jobs[name]

    def job(self, name: str) -> Job:
        """Return the job that was registered last under a name."""
        return self._jobs.get(name) or self.begin(name)

    def cancel(self, name: str | None = None) -> None:
        """Cancel the job of a name, or all jobs. A job that has not started yet will end at once."""
        for job in [self._jobs[name]] if name in self._jobs else [] if name else list(self._jobs.values()):
            job.cancel()

    def __enter__(self) -> Session:
        """Start a job.

        Raises:
            ValueError: Another job of this visitor is running.
        """
        if not self._lock.acquire(blocking=False):
            raise ValueError("another job of yours is running; wait until it is done, or cancel it")
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def new_folder(self, name: str) -> Path:
        """Return an empty folder for the files of a result, and remove those of the last result of that name."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return Path(tempfile.mkdtemp(dir=folder))  # a new address, so that browsers do not show the last result


class Sessions:
    """All visitors. Their files are in one temporary folder.

    Args:
        root: Folder for the files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Session:
        """Return the session of a visitor, and create it at the first call."""
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = Session(Path(tempfile.mkdtemp(dir=self.root, prefix="session-")))
            excess = list(self._sessions)[:-MAX_SESSIONS]
        for old in excess:
            self.close(old)
        return self._sessions[key]

    def close(self, key: str) -> None:
        """Cancel the jobs of a visitor who left, and remove the files."""
        with self._lock:
            session = self._sessions.pop(key, None)
        if session is not None:
            session.cancel()
            shutil.rmtree(session.folder, ignore_errors=True)

    def close_all(self) -> None:
        """Close every session."""
        for key in list(self._sessions):
            self.close(key)
