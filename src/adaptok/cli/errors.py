"""Mistakes on the command line, and the nearest valid name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """A command line that cannot be understood.

    It is no ValueError, so that it passes through tyro, which would print a ValueError in a box of its own.

    Attributes:
        value: the argument that is wrong, if it is the value of a flag.
    """

    def __init__(self, message: str, value: str | None = None) -> None:
        super().__init__(message)
        self.value = value


class Failure(Exception):
    """Something that cannot be done, although nothing on the command line is mistyped: exit code 1, in one line."""


def plain(text: str) -> str:
    """Replace control characters and other unprintable ones, which names and metadata may hold, by escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def one_of(names: Iterable[str]) -> str:
    """Names as a phrase: "a, b or c"."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def nearest(name: str, names: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The valid name that is most similar to a mistyped one, if any is similar."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)
    return close[0] if close else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """A clause that suggests the nearest valid name; empty if none is similar."""
    close = nearest(name, names)
    return "" if close is None else f"; did you mean {close}?"
