"""Commands and their options, read from the dataclasses that define them.

tyro offers no public view of the parser that it builds, and both the diagnosis of a wrong command line and the command
line reference of the documentation need one.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import tyro

from adaptok.cli.commands import Adaptok


@dataclass(frozen=True)
class Flag:
    """Spellings and values of an option."""

    names: tuple[str, ...]
    takes_value: bool
    takes_several: bool
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """The command that a command line reaches, and the arguments that follow it."""

    node: type
    names: tuple[str, ...]
    rest: list[str]

    @property
    def prefix(self) -> str:
        """Beginning of an error message: the names of the command."""
        return f"{' '.join(self.names)}: " if self.names else ""

    @property
    def advice(self) -> str:
        """End of an error message: where to read on."""
        return f"; see '{' '.join(['adaptok', *self.names, '--help'])}'"


class CommandField(NamedTuple):
    """A field of a command that is an option or a positional argument."""

    field: dataclasses.Field[Any]
    hint: Any
    """Type without its annotations."""
    notes: tuple[Any, ...]
    """Annotations of the type, among them those of tyro."""
    owner: type
    """Dataclass that has the field: the command, or one of its groups of options."""
    group: str | None
    """Title of the group of options, or None for those of the command itself."""

    @property
    def is_positional(self) -> bool:
        """Whether the field is an argument without a flag."""
        return tyro.conf.Positional in self.notes

    @property
    def is_required(self) -> bool:
        """Whether the field has no default."""
        return self.field.default is dataclasses.MISSING and self.field.default_factory is dataclasses.MISSING

    def setting(self, name: str) -> Any:
        """Return what `tyro.conf.arg` set for the field, such as its `metavar`; None if nothing."""
        return next((value for note in self.notes if (value := getattr(note, name, None)) is not None), None)

    @property
    def flag(self) -> Flag:
        """The field as an option. Its long names come first."""
        name = self.field.name.replace("_", "-")
        names = (f"--{name}", *(self.setting("aliases") or ()))
        if self.hint is bool and tyro.conf.FlagCreatePairsOff not in self.notes:
            names = (*names, f"--no-{name}")
        is_variadic = any(get_origin(kind) is tuple for kind in (self.hint, *get_args(self.hint)))
        return Flag(names, self.hint is not bool, is_variadic, tuple(map(str, literals(self.hint))))


def find_command(arguments: Sequence[str]) -> Place:
    """Follow the names of commands at the beginning of a command line."""
    node: type = Adaptok
    names: tuple[str, ...] = ()
    rest = list(arguments)
    while rest and rest[0] in subcommands(node):
        names = (*names, rest.pop(0))
        node = subcommands(node)[names[-1]]
    return Place(node, names, rest)


def subcommands(node: type) -> dict[str, type]:
    """Return the subcommands of a command by name."""
    if "command" not in {field.name for field in dataclasses.fields(node)}:
        return {}
    union = typing.get_type_hints(node, include_extras=True)["command"]
    return {option.__metadata__[0].name: option.__origin__ for option in get_args(union)}


def command_fields(node: type, group: str | None = None) -> Iterator[CommandField]:
    """Iterate over the options and arguments of a command, also those of its groups of options."""
    hints = typing.get_type_hints(node, include_extras=True)
    for field in dataclasses.fields(node):
        hint: Any = hints[field.name]
        notes: tuple[Any, ...] = ()
        if get_origin(hint) is Annotated:
            hint, notes = hint.__origin__, hint.__metadata__
        if dataclasses.is_dataclass(hint):
            title = next((note.name for note in notes if getattr(note, "name", None)), group)
            yield from command_fields(hint, title)  # type: ignore[arg-type]
        elif tyro.conf.Suppress not in notes and field.name != "command":
            yield CommandField(field, hint, notes, node, group)


def marked_values(command: Any, mark: str) -> Iterator[Any]:
    """Iterate over the values, other than None, of the options of a command whose types are annotated with a mark."""
    hints = typing.get_type_hints(type(command), include_extras=True)
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if dataclasses.is_dataclass(value):
            yield from marked_values(value, mark)
        elif value is not None and mark in getattr(hints[field.name], "__metadata__", ()):
            yield value


def flags_of(node: type) -> list[Flag]:
    """List the options of a command."""
    fields = [field for field in command_fields(node) if not field.is_positional]
    return [Flag(("--help", "-h"), False, False, ()), *(field.flag for field in fields)]


def literals(hint: Any) -> tuple[Any, ...]:
    """Return the values of the first literal type inside a type."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next((values for part in get_args(hint) if (values := literals(part))), ())
