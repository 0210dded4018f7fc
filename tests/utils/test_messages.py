"""Quotes in error messages."""

from __future__ import annotations

from adaptok.utils.messages import MAX_QUOTE, one_line


def test_quotes_are_short_lines_without_control_characters():
    assert one_line("a\nb\x1b[31m ä") == "a\\nb\\x1b[31m ä"
    long = one_line("x" * 100_000 + "end")
    assert len(long) <= MAX_QUOTE + 3
    assert one_line("y" * MAX_QUOTE) == "y" * MAX_QUOTE
