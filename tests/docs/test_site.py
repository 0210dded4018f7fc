"""The references of the documentation site are complete, and its pages can be reached."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import adaptok
from adaptok.cli.structure import command_fields, find_command
from adaptok.config.training import config_fields

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reference():
    pytest.importorskip("sphinx", reason="needs the extra docs")
    sys.path.insert(0, str(DOCS / "extensions"))
    try:
        import reference
    finally:
        sys.path.pop(0)
    return reference


def test_every_public_name_is_in_the_api():
    names = re.findall(r"^\.\. auto\w+:: adaptok\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(names) == sorted(adaptok.__all__)


def test_every_page_is_in_the_index():
    listed = re.findall(r"^(?:.* <)?([a-z-]+)>?$", (DOCS / "index.md").read_text(), re.MULTILINE)
    assert {page.stem for page in DOCS.glob("*.md")} - {"index"} == set(listed)


def test_command_reference(reference):
    text = "\n".join(reference.command_reference())
    section = text.partition("## adaptok encode\n")[2].partition("\n## ")[0]
    assert section.startswith("\nEncode a video")
    assert "adaptok encode VIDEO [TOKENS] [OPTIONS]" in section
    for field in command_fields(find_command(["encode"]).node):
        assert field.is_positional or f"`{field.flag.names[0]}" in section, field.field.name
    assert "\n### adaptok train tokenizer\n" in text


def test_configuration_reference(reference):
    text = "\n".join(reference.configuration_reference())
    tokenizers, generators = text.split("## Generators\n")
    for stage, part in (("tokenizer", tokenizers), ("generator", generators)):
        for key in (field.key for field in config_fields(stage)):
            section, _, name = key.rpartition(".")
            place = part if not section else part.partition(f"### {section}")[2]
            assert f"`{name}`\n:" in place, key
    assert "`lr`\n: `float`, default" in tokenizers
