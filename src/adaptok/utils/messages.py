"""Texts of errors that quote what files contain."""

from __future__ import annotations

MAX_QUOTE = 300
"""Characters of a quote. What stands in a damaged file may be as long as the file."""


def one_line(quoted: object) -> str:
    """Return a text on one line, without unprintable characters, and without its middle if it is long."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(quoted)[: 4 * MAX_QUOTE])
    return text if len(text) <= MAX_QUOTE else f"{text[: MAX_QUOTE // 2]} … {text[-MAX_QUOTE // 2 :]}"
