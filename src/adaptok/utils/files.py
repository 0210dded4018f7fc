"""Writing files whole or not at all, and by one process only; telling them apart."""

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
"""Folder beside claimed files, of those that are being written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`, renamed to it when the body succeeds and removed when it does not."""
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
    """A file to write that becomes `path` when the body succeeds, and is removed when it does not.

    None where `path` is there already, or where another live process is writing it. So of any number of processes, on
    any machines that share the folder, one writes it, once. The claim is a lock on the file, which ends with the
    process that holds it, however that ends: what a killed one left is claimed, and written from its beginning, by
    the next.

    Args:
        wait: until the other process is done or dead; then there is a file only where it was not written.
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
            if not _is_at(file, temporary) or path.exists():  # another process was done in between
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
    """Remove what killed processes left of files in `folder`; what a live one is writing stays."""
    partial = folder / PARTIAL
    for temporary in list(partial.iterdir()) if partial.is_dir() else []:
        with contextlib.suppress(FileNotFoundError), open(temporary, "r+b") as file:
            if _locked(file, wait=False) and _is_at(file, temporary):
                temporary.unlink()
    with contextlib.suppress(OSError):  # not there, or in use
        partial.rmdir()


def _locked(file: IO[bytes], wait: bool) -> bool:
    """Lock a file; False where another process holds it."""
    try:
        import fcntl
    except ModuleNotFoundError:
        raise ImportError("files that several processes share need POSIX locks; use Linux, macOS or WSL") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is the one of this name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
