"""From a command line to a command that is ready to run.

tyro parses; its public interface reports a mistake either by an exception of a converter, by unknown arguments, or by
a silent exit with code 2. Each becomes one line that names the nearest valid spelling.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from adaptok import __version__
from adaptok.cli.commands import Adaptok
from adaptok.cli.compatibility import modernize
from adaptok.cli.errors import UsageError, did_you_mean, one_of
from adaptok.cli.structure import Flag, Place, command_fields, find_command, flags_of, subcommands

_MARKERS = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)


def parse(arguments: Sequence[str]) -> Any:
    """Parse a command line.

    Returns:
        A command with a method `run`.

    Raises:
        UsageError: the command line is wrong.
        SystemExit: help, a completion script or the version was requested, and has been printed.
    """
    try:
        return _parse(arguments)
    except UsageError:
        current = modernize(arguments)
        if current == list(arguments):
            raise
        return _parse(current)


def _parse(arguments: Sequence[str]) -> Any:
    try:
        root, unknown = _call_tyro(arguments, printing=False)
    except UsageError as error:
        flag = _flag_of(arguments, error.value)
        raise UsageError(f"{flag}: {error}" if flag else str(error)) from None
    except SystemExit as stop:
        if stop.code == 0:
            print_help(find_command(arguments).names)
        if stop.code != 2:
            raise
        raise UsageError(_diagnose(arguments)) from None
    if root.version:
        print(f"adaptok {__version__}")
        raise SystemExit(0)
    command = root.command
    while hasattr(command, "command"):
        command = command.command
    if unknown and hasattr(command, "take_unknown"):
        command.take_unknown(unknown, [name for flag in flags_of(type(command)) for name in flag.names])
    elif unknown:
        raise UsageError(_diagnose(arguments, unknown))
    return command


def _call_tyro(arguments: Sequence[str], printing: bool) -> tuple[Any, list[str]]:
    # console_outputs=False leaves one kind of tyro's errors on standard error, so that is discarded too.
    with contextlib.nullcontext() if printing else contextlib.redirect_stderr(io.StringIO()):
        return tyro.cli(
            Adaptok,
            prog="adaptok",
            args=arguments,
            return_unknown_args=True,
            console_outputs=printing,
            config=_MARKERS,
            registry=_registry(),
        )


def print_help(names: Sequence[str]) -> None:
    """Print the help of a command, and end the program.

    Raises:
        UsageError: there is no such command.
        SystemExit: the help has been printed.
    """
    place = find_command(names)
    if place.rest:
        raise UsageError(_describe_unknown_command(place, subcommands(place.node)))
    try:
        _call_tyro([*names, "--help"], printing=True)
    finally:
        if hasattr(place.node, "notes"):
            print(textwrap.fill(place.node.notes, min(shutil.get_terminal_size().columns, 120)))
        if hasattr(place.node, "epilog"):
            print(place.node.epilog())


def _registry() -> ConstructorRegistry:
    """Converters of numbers whose errors are one line."""
    registry = ConstructorRegistry()
    expected: dict[type, str] = {int: "an integer", float: "a number"}

    @registry.primitive_rule
    def convert(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        kind: Any = info.type
        if kind not in expected:
            return None

        def read(values: list[str]) -> Any:
            try:
                return kind(values[0])
            except ValueError:
                raise UsageError(f"{values[0]!r} is not {expected[kind]}", values[0]) from None

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=kind.__name__.upper(),
            instance_from_str=read,
            is_instance=lambda value: isinstance(value, kind),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _flag_of(arguments: Sequence[str], value: str | None) -> str | None:
    """The flag that a value was given for, if any."""
    for place, argument in enumerate(arguments):
        if value is not None and argument.startswith("--") and argument.partition("=")[2] == value:
            return argument.partition("=")[0]
        if argument == value or (value is not None and value in argument.split(",")):
            return next((name for name in reversed(arguments[:place]) if name.startswith("-")), None)
    return None


# Diagnosis of a command line that tyro refused.


def _diagnose(arguments: Sequence[str], unknown: Sequence[str] = ()) -> str:
    """Say in one line what is wrong with a command line.

    Args:
        arguments: the command line.
        unknown: arguments that no command takes, if the rest was understood.
    """
    place = find_command(arguments)
    choices = subcommands(place.node)
    flags = {name: flag for flag in flags_of(place.node) for name in flag.names}
    rest = [argument.replace("_", "-") if argument.startswith("--") else argument for argument in place.rest]
    if choices and rest and not _is_flag(rest[0]):
        return _describe_unknown_command(place, choices)
    strange = [word for word in unknown or rest if _is_flag(word) and word.partition("=")[0] not in flags]
    if strange or unknown:
        return _describe_unknown(place, [*strange, *unknown][0], flags)
    if choices:
        return f"{place.prefix}expected {one_of(choices)} after it"
    return _describe_value(rest, flags) or _describe_missing(place)


def _describe_unknown_command(place: Place, choices: dict[str, type]) -> str:
    word = place.rest[0]
    suggestion = did_you_mean(word, choices)
    if not suggestion and len(choices) < 6:
        suggestion = f", expected {one_of(choices)}"
    return f"{place.prefix}unknown command {word!r}{suggestion}{place.advice}"


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word[1:2] != "" and not word[1:2].isdigit() and word[1:2] != "."


def _describe_unknown(place: Place, word: str, flags: dict[str, Flag]) -> str:
    name = word.partition("=")[0]
    if not _is_flag(word):
        return f"{place.prefix}unexpected argument {word!r}{place.advice}"
    if name in flags:
        return f"{name} is repeated, or stands before the command it belongs to"
    return f"{place.prefix}unknown flag {name}{did_you_mean(name, flags)}{place.advice}"


def _describe_value(rest: Sequence[str], flags: dict[str, Flag]) -> str | None:
    """A flag without its value, or with a value that is no choice of it."""
    for place, argument in enumerate(rest):
        name, equals, value = argument.partition("=")
        flag = flags.get(name)
        if flag is None or not flag.takes_value:
            continue
        following = [value] if equals else list(itertools.takewhile(lambda word: not _is_flag(word), rest[place + 1 :]))
        if not following:
            return f"{name}: expected a value after it"
        checked = following if flag.takes_several else following[:1]
        wrong = next((word for word in checked if flag.choices and word not in flag.choices), None)
        if wrong is not None:
            return f"{name}: {wrong!r} is not {one_of(flag.choices)}{did_you_mean(wrong, flag.choices)}"
    return None


def _describe_missing(place: Place) -> str:
    given = [word.partition("=")[0] for word in place.rest]
    names = []
    for field in command_fields(place.node):
        flag = field.flag.names[0]
        if field.is_required and field.is_positional:
            names.append(field.setting("metavar"))
        elif field.is_required and flag not in given:
            names.append(flag)
    if not names:
        return f"{place.prefix}the arguments cannot be understood{place.advice}"
    return f"{place.prefix}expected {' '.join(names)}{place.advice}"
