"""Weight files that others published: given by path, cached, or downloaded, and verified by their SHA-256."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from adaptok.utils.downloads import ChecksumError, Progress, download
from adaptok.utils.files import replacing, sha256_of


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
            download: fetch the file into the cache if it is not there.

        Raises:
            FileNotFoundError: the given file does not exist.
            WeightsError: the file is not cached, or cannot be downloaded.
        """
        if given is not None:
            if not given.is_file():
                raise FileNotFoundError(f"{given}: no such file; {self.name} is at {self.url}")
            return given
        if not self.cached.is_file():
            if not download and not self.source.is_file():
                raise WeightsError(
                    f"{self.name} ({self.megabytes} MB, {self.url}) is not in the cache; give its path, or --download"
                )
            self.fetch()
        return self.cached

    @property
    def source(self) -> Path:
        """Path of the file as it is published, which `convert` reads."""
        return self.cached if self.convert is None else cache_folder() / self.url.rpartition("/")[2]

    def fetch(self, progress: Progress = lambda done, total: None) -> Path:
        """Download the file into the cache if it is not there, and return its path.

        An interrupted download resumes. A source that somebody put into the cache is converted.

        Args:
            progress: called with the number of bytes that are there, and of all bytes, if the server states it.

        Raises:
            WeightsError: the file cannot be downloaded, or is not the published one.
        """
        if self.cached.is_file():
            return self.cached
        try:
            given = self.source.is_file()
            download(self.url, self.source, self.sha256, progress)
            if self.convert is not None:
                self._convert(self.convert, verify=given)
        except ChecksumError as error:
            raise WeightsError(
                f"{self.url}: not the published {self.name} ({error}); give the path of a good copy"
            ) from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise WeightsError(
                f"{self.name} cannot be downloaded from {self.url} ({reason}); without a network, give its path, or"
                f" download that file elsewhere and save it as {self.source}"
            ) from None
        return self.cached

    def _convert(self, convert: Callable[[Path, Path], None], verify: bool) -> None:
        actual = sha256_of(self.source) if verify else self.sha256
        if actual != self.sha256:
            raise WeightsError(
                f"{self.source}: SHA-256 {actual[:12]}…, expected {self.sha256[:12]}…; remove it, or save a good copy"
            )
        with replacing(self.cached) as temporary:
            convert(self.source, temporary)
        self.source.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Folder of downloaded files: `$ADAPTOK_CACHE`, or `adaptok` in the user's cache folder."""
    if folder := os.environ.get("ADAPTOK_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adaptok"
