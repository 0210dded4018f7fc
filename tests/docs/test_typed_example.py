"""The typed example uses every public name, and runs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import adaptok

EXAMPLE = Path(__file__).parents[2] / "examples" / "typed_example.py"


def test_every_public_name_is_used():
    tree = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    [names] = [node.names for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "adaptok"]
    assert [alias.name for alias in names] == adaptok.__all__


@pytest.mark.slow
def test_it_runs():
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("AdapTok('adaptok-tiny', 10.5 M parameters")
    assert lines[1] == "256 tokens for 15 frames of 192x144 at 30 fps"
    assert "8 frames streamed" in lines
    assert lines[-1] == "(2, 3, 16, 128, 128)"
