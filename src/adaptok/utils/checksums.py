"""Checksums of the files of a folder, in a file that `sha256sum --check` reads, too."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from adaptok.utils.files import replacing, sha256_of

CHECKSUMS_FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\0]+)")


class DamagedError(ValueError):
    """A file differs from the one that was written. The message is one line."""


def format_checksums(hashes: Mapping[str, str]) -> str:
    """Return the content of a checksum file.

    Args:
        hashes: SHA-256 of each file, in hexadecimal digits, by its name.
    """
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))


def write_checksums(folder: Path, names: Collection[str]) -> None:
    """Write the checksums of these files of a folder."""
    with replacing(folder / CHECKSUMS_FILE) as temporary:
        temporary.write_text(format_checksums({name: sha256_of(folder / name) for name in names}), encoding="utf-8")


def read_checksums(folder: Path) -> dict[str, str] | None:
    """Read the SHA-256 of each file of a folder by its name; None if the folder has no checksums.

    Raises:
        DamagedError: The checksum file is damaged.
    """
    path = folder / CHECKSUMS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        lines = [""]
    matches = [_LINE.fullmatch(line) for line in lines]
    if not all(matches):
        raise DamagedError(f"{path}: damaged, expected lines of a SHA-256 and a name; restore the folder from a copy")
    return {match[2]: match[1] for match in matches if match is not None}


def check_files(folder: Path, names: Collection[str]) -> None:
    """Compare files of a folder with their checksums, if it has any. Files without a checksum are not checked.

    Raises:
        DamagedError: A file, or the checksum file, is damaged or belongs to another folder.
        FileNotFoundError: A file is missing.
    """
    hashes = read_checksums(folder) or {}
    for name in names:
        if name in hashes and sha256_of(folder / name) != hashes[name]:
            raise DamagedError(
                f"{folder / name}: not the file that was written with {CHECKSUMS_FILE}, but damaged or exchanged;"
                f" restore it, or delete {CHECKSUMS_FILE} if you changed it on purpose"
            )
