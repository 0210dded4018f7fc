"""Checking fields of an official `config.json` for values that this project does not implement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NONE = (None, "", "no", "none", "null")
"""Names that the official program reads as "no such component"."""


def get_path(document: Mapping[str, Any], path: str, default: Any = None) -> Any:
    """Return the value of a field, given the names of the objects that contain it: "bottleneck.args.norm"."""
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return default
        value = value[name]
    return value


def refuse_unsupported(document: Mapping[str, Any], supported: Mapping[str, tuple[Any, ...]]) -> None:
    """Check that every field that is present has a supported value.

    Args:
        document: The official configuration.
        supported: Allowed values of each field. The first one is named in the error.

    Raises:
        ValueError: A field has another value. The message names all such fields.
    """
    problems = []
    for path, allowed in supported.items():
        value = get_path(document, path, allowed[0])
        if isinstance(value, str) and value.lower() in NONE:
            value = value.lower()
        if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
            problems.append(f"{path} {value!r} is not supported, expected {allowed[0]!r}")
    if problems:
        raise ValueError("; ".join(problems))
