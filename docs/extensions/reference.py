"""Extension of Sphinx that writes the reference of commands and configuration from the program itself."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from sphinx.application import Sphinx

from adaptok.cli.structure import CommandField, command_fields, find_command, subcommands
from adaptok.config.base import Config, all_names, kind_of, members
from adaptok.config.overrides import descriptions, type_name
from adaptok.config.training import GeneratorTrainingConfig, TrainingConfig


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", append_reference)
    return {"parallel_read_safe": True}


def append_reference(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the generated part to the pages that have one."""
    generators = {"cli": command_reference, "configuration": configuration_reference}
    if page in generators:
        source[0] = "\n".join([source[0], *generators[page]()])


# Commands


def command_reference() -> Iterator[str]:
    """Write a section in Markdown for every command, with a list for every group of options."""
    yield from _command_sections(())


def _command_sections(names: tuple[str, ...]) -> Iterator[str]:
    node = find_command(names).node
    choices = subcommands(node)
    if names:
        yield f"{'#' * (len(names) + 1)} adaptok {' '.join(names)}\n"
        yield f"{_markdown(inspect.getdoc(node) or '')}\n"
        if not choices:
            yield f"```text\n{_usage(names, node)}\n```\n"
        yield from _option_lists(node)
        if hasattr(node, "notes"):
            yield f"{_markdown(node.notes)}\n"
        if hasattr(node, "epilog"):
            yield "All fields are listed in [Configuration](configuration.md).\n"
    for choice in choices:
        yield from _command_sections((*names, choice))


def _usage(names: tuple[str, ...], node: type) -> str:
    fields = list(command_fields(node))
    required = [f"{field.flag.names[0]} {_metavar(field)}" for field in fields if _is_required_option(field)]
    positional = [_metavar(field) for field in fields if field.is_positional]
    return " ".join(["adaptok", *names, *positional, *required, "[OPTIONS]"])


def _is_required_option(field: CommandField) -> bool:
    return field.is_required and not field.is_positional


def _option_lists(node: type) -> Iterator[str]:
    groups: dict[str | None, list[CommandField]] = {}
    for field in command_fields(node):
        groups.setdefault(field.group, []).append(field)
    for title, fields in groups.items():
        if title is not None:
            yield f"**{title.capitalize()} options.** {_markdown(inspect.getdoc(fields[0].owner) or '')}\n"
        for field in fields:
            yield f"{_spelling(field)}\n: {_option_help(field)}\n"


def _spelling(field: CommandField) -> str:
    metavar = _metavar(field)
    if field.is_positional:
        return f"`{metavar}`"
    value = f" {metavar}" if field.flag.takes_value else ""
    return ", ".join(f"`{name}{value}`" for name in field.flag.names)


def _metavar(field: CommandField) -> str:
    if metavar := field.setting("metavar"):
        return str(metavar)
    if field.flag.choices:
        return f"{{{','.join(field.flag.choices)}}}"
    return getattr(field.hint, "__name__", str(field.hint)).upper()


def _option_help(field: CommandField) -> str:
    text = _markdown(descriptions(field.owner)[field.field.name])
    default = field.field.default
    if field.setting("help_behavior_hint") is not None or default is None or field.is_required:
        return text
    if isinstance(default, bool):
        return f"{text} On by default." if default else text
    return f"{text} Default: `{default}`."


# Configuration


def configuration_reference() -> Iterator[str]:
    """Write a section in Markdown for every class of configuration, with a list of its fields."""
    yield "## Tokenizers and scorers\n"
    yield from _class_sections(TrainingConfig, "", "tokenizer")
    yield "## Generators\n"
    yield from _class_sections(GeneratorTrainingConfig, "", "generator")


def _class_sections(cls: type[Config], prefix: str, stage: str) -> Iterator[str]:
    yield f"{_markdown(inspect.getdoc(cls) or '')}\n"
    nested: list[tuple[str, type[Config]]] = []
    for name, info in cls.model_fields.items():
        key, inner = f"{prefix}{name}", members(info.annotation)
        nested += [(key, member) for member in inner]
        links = " or ".join(f"[{_link_text(inner, each)}](#{_anchor(stage, key, each)})" for each in inner)
        value = info.get_default(call_default_factory=True)
        default = "required" if info.is_required() else _default(value, len(inner) > 1)
        former = "".join(f" Formerly `{alias}`." for alias in all_names(name, info)[1:])
        text = _markdown(descriptions(cls).get(name, ""))
        yield f"`{name}`\n: {links or f'`{type_name(info.annotation)}`'}, {default}. {text}{former}\n"
    for key, member in nested:
        kind = f" of kind {kind_of(member)}" if _has_kinds(nested, key) else ""
        yield f"({_anchor(stage, key, member)})=\n### {key}{kind}\n"
        yield from _class_sections(member, f"{key}.", stage)


def _link_text(classes: Sequence[type[Config]], cls: type[Config]) -> str:
    return "section" if len(classes) == 1 else f"section of kind {kind_of(cls)}"


def _has_kinds(nested: Sequence[tuple[str, type[Config]]], key: str) -> bool:
    return [other for other, _ in nested].count(key) > 1


def _anchor(stage: str, key: str, cls: type[Config]) -> str:
    return "-".join([stage, *key.replace("_", "-").split("."), kind_of(cls) or "fields"])


def _default(value: Any, has_kinds: bool) -> str:
    if isinstance(value, Config):
        return f"by default of kind {kind_of(type(value))}" if has_kinds else "with defaults"
    return f"default `{json.dumps(value)}`"


# Markdown


def _markdown(text: str) -> str:
    """Join the lines of a paragraph, and quote what Markdown would read as markup outside of code spans."""
    parts = " ".join(text.split()).split("`")
    parts[::2] = [re.sub(r"([<*_|\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
