"""One kill of each command. `make crash` kills them often."""

from __future__ import annotations

import os

import pytest

from tests.crash.commands import COMMANDS
from tests.crash.harness import crash

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")]


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_commands_finish_with_the_same_result(tmp_path, name):
    assert crash(COMMANDS[name](tmp_path / "inputs"), 1, 0, tmp_path).kills == 1
