"""Downloads that resume where they were interrupted, verified by their SHA-256."""

from __future__ import annotations

import contextlib
import os
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError

from adaptok.utils.files import lock, sha256_of

TIMEOUT = 20.0
"""Seconds without an answer of the server after which a download fails."""
_CHUNK = 2**20

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes that are there, and of all bytes, if the server states it."""


class ChecksumError(ValueError):
    """A downloaded file is not the expected one."""


class _HttpRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects of a server to HTTP and HTTPS only."""

    def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:
        request = super().redirect_request(*arguments)
        if request is not None and request.type not in ("http", "https"):
            raise HTTPException(f"redirected to {request.full_url}, expected http or https")
        return request


def partial_path(target: Path) -> Path:
    """Return the file, beside `target`, that holds what has been downloaded so far."""
    return target.with_name(f".{target.name}.part")


def download(url: str, target: Path, sha256: str, progress: Progress = lambda done, total: None) -> None:
    """Download a file. One of several processes does so, and the others wait for it.

    An interrupted download is kept beside `target`, and resumed by the next call.

    Args:
        url: Address.
        target: File to write. Its folder is created; nothing happens if it exists.
        sha256: Expected SHA-256 of the file.
        progress: Called after every chunk.

    Raises:
        ChecksumError: The server has another file. Nothing of it is kept.
        OSError, HTTPException: The download failed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(target)
    with partial.open("ab") as file:
        with contextlib.suppress(ImportError):  # Windows has no such locks
            lock(file)
        try:
            if target.exists():  # another process has just written it
                return
            _complete(url, file, partial, sha256, progress)
            if os.name == "posix":  # before the lock is released
                os.replace(partial, target)
        finally:
            file.flush()
            if target.exists() or not os.fstat(file.fileno()).st_size:
                with contextlib.suppress(OSError):  # moved, or open on Windows
                    partial.unlink()
    if os.name != "posix":  # an open file cannot be renamed
        os.replace(partial, target)


def download_unverified(url: str, target: Path, progress: Progress = lambda done, total: None) -> None:
    """Download a file whose SHA-256 is unknown.

    Args:
        url: Address.
        target: File to write, in an existing folder.
        progress: Called after every chunk.

    Raises:
        OSError, HTTPException: The download failed.
    """
    with target.open("w+b") as file:
        _transfer(url, file, progress)


def _complete(url: str, file: IO[bytes], partial: Path, sha256: str, progress: Progress) -> None:
    """Download the rest of a file, and all of it if what is there belongs to another file."""
    resumed = file.tell() > 0
    _transfer(url, file, progress)
    actual = sha256_of(partial)
    if actual != sha256 and resumed:
        file.truncate(0)
        _transfer(url, file, progress)
        actual = sha256_of(partial)
    if actual != sha256:
        file.truncate(0)
        raise ChecksumError(f"SHA-256 {actual[:12]}…, expected {sha256[:12]}…")


def _transfer(url: str, file: IO[bytes], progress: Progress) -> None:
    """Append the rest of a file to what is there, or all of it if the server does not send parts."""
    done = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.build_opener(_HttpRedirects).open(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and done:  # nothing is left; the checksum decides
            return
        raise
    with response:
        if done and getattr(response, "status", None) != 206:
            file.truncate(0)
            done = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        progress(done, total)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    file.flush()
    if total is not None and done < total:
        raise HTTPException(f"the connection ended after {done} of {total} bytes")
