"""Commands in the documentation are valid, and its links lead to files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from adaptok.cli.parser import parse

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
PAGES += sorted(path for folder in ("docs", "experiments") for path in (ROOT / folder).rglob("*.md"))


def commands(text: str) -> list[str]:
    """Every `adaptok …` of a page: lines of shell blocks, and code spans."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    spans = re.findall(r"`(adaptok [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    lines += [span for span in spans if re.search(r" (-|[\w.]+/|\w+\.\w)", span)]
    programs = re.compile(r"^(?:\S+=\S+ )*(?:(?:torchrun|accelerate launch) .*?-m )?adaptok ")
    return [programs.sub("", line) for line in lines if programs.match(line)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_can_be_parsed(page, capsys):
    for command in commands(page.read_text(encoding="utf-8")):
        words = shlex.split(command, comments=True)
        if "…" in command or words[-1] in ("--help", "--version"):
            continue
        try:
            parse(words)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{page.name}: adaptok {command}: {error}")


def test_commands_are_recognized():
    assert len(commands((ROOT / "README.md").read_text(encoding="utf-8"))) >= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
