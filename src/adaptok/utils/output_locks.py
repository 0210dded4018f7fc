"""Locks of outputs: of two processes that write the same file or folder, one works and the other one says so.

A lock is a hidden file, locked by the operating system (`flock`), beside the output file or in the output folder. It
ends with the process that holds it, however that ends, so the lock of a killed process needs no repair: the next one
takes it over. The content of the file, the owner and the time, only serves the message. On systems and file systems
without such locks, nothing is locked.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from adaptok.utils.files import TEMPORARY, is_at, raise_if_full, temporary_prefix, try_lock, writable_target

LOCK_FILE = ".adaptok.lock"
"""Name of the lock in an output folder, and the end of the name of the lock beside an output file."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_descriptors: set[int] = set()  # of the locks that this process holds


class OutputInUseError(OSError):
    """Another process is writing the output. The message is one line that names the process."""


@contextmanager
def holding_file(path: Path) -> Iterator[None]:
    """Lock an output file, which need not exist, while the body runs. Its folder must exist.

    Raises:
        OutputInUseError: Another process holds the lock.
        ValueError: `path` is something else than a file, such as a device or a folder.
        OSError: The folder cannot be written to.
    """
    target = writable_target(path)
    prefix = temporary_prefix(target)
    with _holding(target.parent / f"{prefix.rstrip('-')}{LOCK_FILE}", path) as stale:
        if stale:
            _remove(target.parent.glob(f"{prefix}*"))
        yield


@contextmanager
def holding_folder(folder: Path) -> Iterator[None]:
    """Lock an output folder while the body runs. It is created if necessary, and removed again if it stays empty.

    Raises:
        OutputInUseError: Another process holds the lock.
        OSError: The folder cannot be created or written to.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _holding(folder / LOCK_FILE, folder) as stale:
            if stale:
                _remove(folder.rglob(f"{TEMPORARY}*"))
            yield
    finally:
        with contextlib.suppress(OSError):  # not empty
            for path in created:
                path.rmdir()


@contextmanager
def _holding(lock: Path, output: Path) -> Iterator[bool]:
    """Hold a lock while the body runs. Yield whether a process that held it before was killed."""
    process, file = os.getpid(), _acquire(lock, output)
    if file is None:
        yield False
        return
    with file:
        descriptor = file.fileno()
        _descriptors.add(descriptor)
        try:
            stale = bool(file.read())
            _write_owner(file, output)
            yield stale
        finally:
            if os.getpid() == process:  # not in a fork of it
                _descriptors.discard(descriptor)
                if is_at(file, lock):
                    lock.unlink()


def _acquire(lock: Path, output: Path) -> IO[bytes] | None:
    """Open and lock a file. Return None if there are no locks here."""
    while True:
        try:
            file = os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except OSError as error:
            raise_if_full(error, output)
            raise type(error)(error.errno, error.strerror, str(output)) from None
        with contextlib.ExitStack() as stack:
            stack.enter_context(file)
            try:
                if not try_lock(file):
                    raise OutputInUseError(_in_use(file, output))
            except (ImportError, OSError) as error:
                if not isinstance(error, ImportError) and error.errno not in _NO_LOCKS:
                    raise
                lock.unlink(missing_ok=True)
                return None
            if is_at(file, lock):
                stack.pop_all()
                return file
            # otherwise, its owner has just removed it


def _write_owner(file: IO[bytes], output: Path) -> None:
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
    try:
        file.seek(0)
        file.truncate()
        file.write(json.dumps(owner).encode())
        file.flush()
    except OSError as error:
        raise_if_full(error, output)
        raise


def _in_use(file: IO[bytes], output: Path) -> str:
    """Describe the owner of a lock in a sentence, as far as it is known."""
    owner = ""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        values = json.loads(file.read())
        minutes = max(0, round((time.time() - float(values["since"])) / 60))
        owner = f" (process {int(values['pid'])} on {values['host']}, for {minutes} min)"
    return f"{output}: another process{owner} is writing it; wait until it has finished, or choose another output"


def _remove(paths: Iterator[Path]) -> None:
    """Remove temporary files that a killed process left."""
    for path in paths:
        if path.is_file() and not path.name.endswith(LOCK_FILE):
            path.unlink(missing_ok=True)


def _close_inherited() -> None:
    """Close the locks in a forked process, which must not hold them when this one was killed."""
    for descriptor in _descriptors:
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, descriptor)  # so that its number is not taken by another file
        os.close(nothing)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
