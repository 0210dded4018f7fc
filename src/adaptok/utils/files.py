"""Writing files atomically, by one of several processes, and hashing them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PARTIAL = ".partial"
"""Name of the folder, beside claimed files, that holds those being written."""
TEMPORARY = ".adaptok-"
"""First characters of the names of temporary files."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SUFFIX_LENGTH = 16  # in bytes; libraries choose the format of a file by its suffix, and none of these is longer


class WriteError(OSError):
    """A file cannot be written completely, for example because the disk is full. The message is one line."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Provide a temporary file beside `path`. It replaces `path` if the body succeeds, and is removed otherwise.

    Its content is on the disk before it gets its name. The target of a symbolic link is replaced rather than the link.
    A file that exists keeps its permissions; a new one has those that the umask leaves.

    Raises:
        ValueError: `path` is something else than a file, such as a device or a folder.
        WriteError: The disk is full, or a limit on the size of files is reached.
        OSError: The folder cannot be written to, among others.
    """
    target = writable_target(path)
    temporary = _create_temporary(path, target)
    try:
        try:
            mode = stat.S_IMODE(os.stat(target if target.exists() else temporary).st_mode)
            yield temporary
            sync(temporary)
            os.chmod(temporary, mode)
        except Exception as error:
            raise_if_full(error, path)
            raise
        os.replace(temporary, target)
        sync(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def writable_target(path: Path) -> Path:
    """Return the file that writing to `path` replaces: that at the end of symbolic links.

    Raises:
        ValueError: It is something else than a file, such as a device or a folder, or the links have no end.
    """
    try:
        target = path.resolve() if path.is_symlink() else path
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return target
    except (RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ELOOP:
            raise
        raise ValueError(f"{path}: a symbolic link to itself; choose another output") from None
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "device or pipe"
        raise ValueError(f"{path}: a {kind}, expected the name of a file to write; choose another output")
    return target


def temporary_prefix(path: Path) -> str:
    """Return the first characters of the names of temporary files that replace `path`. They fit long names, too."""
    return f"{TEMPORARY}{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]}-"


def _create_temporary(path: Path, target: Path) -> Path:
    suffix = target.suffix if len(os.fsencode(target.suffix)) <= _SUFFIX_LENGTH else ""
    temporary = target.parent / f"{temporary_prefix(target)}{secrets.token_hex(4)}{suffix}"
    try:  # the umask applies to the permissions
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    except OSError as error:
        raise_if_full(error, path)
        raise type(error)(error.errno, error.strerror, str(path)) from None
    if target.exists() and stat.S_IMODE(target.stat().st_mode) & 0o077 == 0:
        os.chmod(temporary, 0o600)  # private while it is being written, too
    return temporary


def raise_if_full(error: Exception, path: Path) -> None:
    """Raise WriteError, about the output `path`, if an error says that the disk is full or a file may not grow."""
    code = getattr(error, "errno", None)  # also of FFmpeg's errors
    if code is None and (match := re.search(r"(?:os error|code:) (\d+)", str(error))):  # safetensors
        code = int(match[1])
    if code in _FULL and not isinstance(error, WriteError):
        reason = os.strerror(code)
        reason = f"{reason[:1].lower()}{reason[1:]}"
        raise WriteError(f"{path}: {reason}; free some space, and run the command again") from None


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name != "posix" and path.is_dir():  # folders cannot be opened
        return
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot
            raise
    finally:
        os.close(handle)


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
            file = os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
        except FileNotFoundError:  # another process has just removed the folder
            continue
        with file:
            if not try_lock(file, wait=wait):
                break
            if not is_at(file, temporary) or path.exists():  # another process has just finished
                continue
            try:
                file.truncate()
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.rename(temporary, path)
                sync(path.parent)
            except Exception as error:
                raise_if_full(error, path)
                raise
            finally:
                if is_at(file, temporary):
                    temporary.unlink()
            return
    yield None


def sweep(folder: Path) -> None:
    """Remove incomplete files that killed processes left in `folder`. Files that are being written are kept."""
    partial = folder / PARTIAL
    for temporary in list(partial.iterdir()) if partial.is_dir() else []:
        with contextlib.suppress(FileNotFoundError), open(temporary, "r+b") as file:
            if try_lock(file) and is_at(file, temporary):
                temporary.unlink()
    with contextlib.suppress(OSError):  # missing, or in use
        partial.rmdir()


def lock(file: IO[bytes]) -> None:
    """Lock a file, and wait while another process holds the lock. Closing the file releases it.

    Raises:
        ImportError: The operating system has no POSIX locks.
    """
    try_lock(file, wait=True)


def try_lock(file: IO[bytes], *, wait: bool = False) -> bool:
    """Lock a file. Return False if another process holds the lock.

    Args:
        file: An open file. Closing it releases the lock, and so does the end of the process.
        wait: Wait until the lock is released.

    Raises:
        ImportError: The operating system has no POSIX locks.
    """
    try:
        import fcntl
    except ModuleNotFoundError:
        raise ImportError("writing files from several processes needs POSIX locks; use Linux, macOS or WSL") from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def is_at(file: IO[bytes], path: Path) -> bool:
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
