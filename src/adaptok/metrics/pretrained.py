"""Weight files that others published: given by path, cached, or downloaded, and verified by their SHA-256."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from adaptok.utils.files import replacing, sha256_of

TIMEOUT = 20.0
"""Seconds without an answer of the server after which a download fails."""
_CHUNK = 2**20


class WeightsError(ValueError):
    """Published weights are neither cached nor downloadable."""


@dataclass(frozen=True)
class Published:
    """A published file of weights.

    Attributes:
        name: name of the file.
        url: address to download it from.
        sha256: SHA-256 of the downloaded bytes.
        megabytes: approximate size.
        convert: writes the file (second path) from the downloaded one (first path), if it is published in another form
            only. Both may be the same path.
    """

    name: str
    url: str
    sha256: str
    megabytes: int
    convert: Callable[[Path, Path], None] | None = None

    @property
    def cached(self) -> Path:
        """Path of the downloaded file."""
        return cache_folder() / self.name

    def find(self, given: Path | None = None, *, download: bool = False) -> Path:
        """Locate the file.

        Args:
            given: path to use instead of the cache.
            download: download the file into the cache if it is not there.

        Raises:
            FileNotFoundError: the given file does not exist.
            WeightsError: the file is not cached, or cannot be downloaded.
        """
        if given is not None:
            if not given.is_file():
                raise FileNotFoundError(f"{given}: no such file; {self.name} is at {self.url}")
            return given
        if not self.cached.is_file():
            if not download:
                raise WeightsError(
                    f"{self.name} ({self.megabytes} MB, {self.url}) is not in the cache; give its path, or --download"
                )
            self._download()
        return self.cached

    def _download(self) -> None:
        try:
            self.cached.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.cached) as temporary:
                with urllib.request.urlopen(self.url, timeout=TIMEOUT) as source, temporary.open("wb") as target:
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)
                actual = sha256_of(temporary)
                if actual != self.sha256:
                    raise WeightsError(
                        f"{self.url}: not the published {self.name} (SHA-256 {actual[:12]}…, expected"
                        f" {self.sha256[:12]}…); give the path of a good copy"
                    )
                if self.convert is not None:
                    self.convert(temporary, temporary)
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise WeightsError(
                f"{self.name} cannot be downloaded from {self.url} ({reason}); without a network, give its path"
            ) from None


def cache_folder() -> Path:
    """Folder of downloaded files: `$ADAPTOK_CACHE`, or `adaptok` in the user's cache folder."""
    if folder := os.environ.get("ADAPTOK_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaptok"
