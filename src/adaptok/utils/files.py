"""Writing files atomically, by one of several processes, and hashing them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PARTIAL = ".partial"
"""Name of the folder, beside claimed files, that holds those being written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Provide a temporary file beside `path`. It replaces `path` if the body succeeds, and is removed otherwise."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def claiming(path: Path, *, wait: bool = False) -> Iterator[IO[bytes] | None]:
    """Claim a file, so that one of several processes writes it once, on any machines that share the folder.

    The claim is a lock, which ends with the process that holds it. A file that a killed process left incomplete is
    written anew by the next process that claims it.

    Args:
        path: The file to write.
        wait: Wait while another process writes the file. It is provided afterwards only if that process failed.

    Yields:
        A file to write, which becomes `path` if the body succeeds and is removed otherwise; or None if `path` exists,
        or another process is writing it.

    Raises:
        ImportError: The operating system has no POSIX locks.
    """
    temporary = path.parent / PARTIAL / path.name
    while not path.exists():
        temporary.parent.mkdir(exist_ok=True)
        try:
            file = os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        except FileNotFoundError:  # another process has just removed the folder
            continue
        with file:
            if not _locked(file, wait):
                break
            if not _is_at(file, temporary) or path.exists():  # another process has just finished
                continue
            try:
                file.truncate()
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.rename(temporary, path)
            finally:
                if _is_at(file, temporary):
                    temporary.unlink()
            return
    yield None


def sweep(folder: Path) -> None:
    """Remove incomplete files that killed processes left in `folder`. Files that are being written are kept."""
    partial = folder / PARTIAL
    for temporary in list(partial.iterdir()) if partial.is_dir() else []:
        with contextlib.suppress(FileNotFoundError), open(temporary, "r+b") as file:
            if _locked(file, wait=False) and _is_at(file, temporary):
                temporary.unlink()
    with contextlib.suppress(OSError):  # missing, or in use
        partial.rmdir()


def lock(file: IO[bytes]) -> None:
    """Lock a file, and wait while another process holds the lock. Closing the file releases it.

    Raises:
        ImportError: The operating system has no POSIX locks.
    """
    _locked(file, wait=True)


def _locked(file: IO[bytes], wait: bool) -> bool:
    """Lock a file. Return False if another process holds the lock."""
    try:
        import fcntl
    except ModuleNotFoundError:
        raise ImportError("writing files from several processes needs POSIX locks; use Linux, macOS or WSL") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Return whether an open file has this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
