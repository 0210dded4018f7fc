"""Options read from the classes of commands are those of the program."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from adaptok.cli.main import main
from adaptok.cli.structure import command_fields, find_command, flags_of, subcommands
from adaptok.config.overrides import descriptions


def commands(names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    choices = subcommands(find_command(names).node)
    if names and not choices:
        yield names
    for choice in choices:
        yield from commands((*names, choice))


@pytest.mark.parametrize("names", list(commands()), ids=" ".join)
def test_flags_are_those_of_help(names, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit, match="0"):
        main([*names, "--help"])
    # The border of a group is drawn with lines or spaces, depending on the encoding of the terminal.
    lines = re.findall(r"^[│ ] (-.*?)(?:  .*)?[│ ]?$", capsys.readouterr().out, re.MULTILINE)
    shown = {flag for line in lines for flag in re.findall(r"(?:^|, )(--?\w[\w-]*)", line.strip())}
    assert {name for flag in flags_of(find_command(names).node) for name in flag.names} == shown


def test_every_option_is_described():
    for names in commands():
        for field in command_fields(find_command(names).node):
            assert descriptions(field.owner)[field.field.name], (names, field.field.name)
