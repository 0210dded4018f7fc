"""Published weights: a file that is given, one fetched before, or one fetched now, and always the published one."""

from __future__ import annotations

import os
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from adaptok.utils.files import replacing, sha256_of

TIMEOUT = 20.0
"""Seconds that a server may be silent."""
_CHUNK = 2**20


class WeightsError(ValueError):
    """Published weights that are not to be had, told in one line."""


@dataclass(frozen=True)
class Published:
    """A file of weights that somebody published.

    Attributes:
        name: of the file.
        url: where it is.
        sha256: of its bytes.
        megabytes: about how large it is.
    """

    name: str
    url: str
    sha256: str
    megabytes: int

    @property
    def cached(self) -> Path:
        """Where a fetched one is kept."""
        return cache_folder() / self.name

    def find(self, given: Path | None = None, *, download: bool = False) -> Path:
        """The file: the given one, the one in the cache, or, where that is wanted, fetched into the cache.

        Raises:
            FileNotFoundError: the given one does not exist.
            WeightsError: it is not there, or cannot be fetched.
        """
        if given is not None:
            if not given.is_file():
                raise FileNotFoundError(f"{given}: no such file; {self.name} is at {self.url}")
            return given
        if self.cached.is_file():
            return self.cached
        if not download:
            raise WeightsError(
                f"{self.name} ({self.megabytes} MB, {self.url}) is not there; give its path, or --download"
            )
        self._fetch()
        return self.cached

    def _fetch(self) -> None:
        try:
            self.cached.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.cached) as temporary:
                with urllib.request.urlopen(self.url, timeout=TIMEOUT) as source, temporary.open("wb") as target:
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)
                found = sha256_of(temporary)
                if found != self.sha256:
                    raise WeightsError(
                        f"{self.url}: gave another file than the published {self.name} (SHA-256 {found[:12]}…, expected"
                        f" {self.sha256[:12]}…); give a good copy by its path"
                    )
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise WeightsError(
                f"{self.name} cannot be fetched from {self.url} ({reason}); without a network, give its path"
            ) from None


def cache_folder() -> Path:
    """Where fetched files are kept: `$ADAPTOK_CACHE`, or `adaptok` in the user's cache."""
    if folder := os.environ.get("ADAPTOK_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaptok"
