"""Commands, called in the process of the test."""

from __future__ import annotations

import json

import pytest

from adaptok.cli.main import main


def run(capsys, *arguments):
    """What a command prints as JSON."""
    main([*map(str, arguments), "--json", "--quiet"])
    return json.loads(capsys.readouterr().out)


def fails(capsys, *arguments):
    """The line that a command fails with."""
    with pytest.raises(SystemExit, match="2"):
        main([*map(str, arguments), "--quiet"])
    return capsys.readouterr().err.splitlines()[-1]
