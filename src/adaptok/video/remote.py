"""Videos at URLs."""

from __future__ import annotations

import re
import tempfile
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from adaptok.utils.downloads import Progress, download_unverified
from adaptok.video.container import VideoError

SCHEMES = ("http", "https")


def check_url(url: str, allowed: bool) -> None:
    """Raise a VideoError unless URLs are allowed, and this one is of a supported scheme."""
    scheme = urllib.parse.urlsplit(url).scheme.lower()
    if scheme not in SCHEMES:
        raise VideoError(
            f"{url}: a URL of the scheme {scheme!r}, expected http or https, or the path of a file (a relative path"
            " that looks like a URL needs ./ before it)"
        )
    if not allowed:
        raise VideoError(f"{url}: URLs are opened only if asked; add --allow-url, or allow_url=True in Python")


@contextmanager
def downloaded(url: str, progress: Progress = lambda done, total: None) -> Iterator[Path]:
    """Download a video into a temporary folder, which is removed at the end.

    Args:
        url: Address, with the scheme http or https.
        progress: Called with the number of bytes that are there, and of all bytes, if the server states it.

    Yields:
        The path of the file. The messages of a `VideoError` that is raised in the body name the URL instead.

    Raises:
        VideoError: The download failed.
    """
    suffix = re.search(r"\.\w{1,5}$", urllib.parse.urlsplit(url).path)
    with tempfile.TemporaryDirectory(prefix="adaptok-") as folder:
        path = Path(folder) / f"video{suffix[0] if suffix else ''}"
        try:
            download_unverified(url, path, progress)
        except (OSError, HTTPException, ValueError) as error:
            reason = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
            raise VideoError(f"{url}: cannot be downloaded ({reason}); check the address and the network") from None
        try:
            yield path
        except VideoError as error:
            raise VideoError(str(error).replace(str(path), url)) from None
