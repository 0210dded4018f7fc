"""Base class of all configuration, reading of YAML files, and explanation of errors."""

from __future__ import annotations

import difflib
import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(gt=0, le=65536)]
"""A dimension of a model. The bound is far above every useful one, and keeps mistyped numbers from being computed."""
Depth = Annotated[int, Field(gt=0, le=1024)]
"""Number of layers of a model, bounded likewise."""
Fraction01 = Annotated[float, Field(ge=0.0, le=1.0)]
ConfigT = TypeVar("ConfigT", bound="Config")
_LONGEST_VALUE, _LONGEST_MESSAGE, _LONGEST_LIST = 100, 300, 1200


class Config(BaseModel):
    """Base of all configuration: immutable and keyword-only. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @classmethod
    def parse(cls: type[ConfigT], values: Mapping[str, Any], source: str = "configuration") -> ConfigT:
        """Validate a mapping of values.

        Args:
            values: values of the fields. Old names of renamed fields are accepted.
            source: name of the mapping in error messages.

        Raises:
            ValueError: a key is unknown or a value is not allowed. The message has one line, names each field, and for
                an unknown one the nearest valid name.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"{source}: expected a mapping of fields, got {type(values).__name__}")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ValueError(f"{source}: {_join([explain(cls, item) for item in error.errors()])}") from None

    @classmethod
    def load(cls: type[ConfigT], path: str | Path) -> ConfigT:
        """Read a YAML or JSON file.

        Raises:
            ValueError: the file is not a valid configuration.
        """
        return cls.parse(read_yaml(path), str(path))

    def first_difference(self, other: Config, ignore: Collection[str] = ()) -> Difference | None:
        """Return the first field, also of nested configurations, that differs from `other`; None if they are equal."""
        return _first_difference(self.model_dump(), other.model_dump(), ignore)


def _join(problems: list[str]) -> str:
    """Join the first problems, and count the others if all would make a long message."""
    shown = problems[:1]
    for problem in problems[1:]:
        if len("; ".join([*shown, problem])) > _LONGEST_LIST:
            return "; ".join([*shown, f"and {len(problems) - len(shown)} more problems"])
        shown.append(problem)
    return "; ".join(shown)


class Difference(NamedTuple):
    """A field that has different values in two configurations."""

    name: str
    value: Any
    other: Any


def _first_difference(values: dict[str, Any], others: dict[str, Any], ignore: Collection[str]) -> Difference | None:
    for name, value in values.items():
        other = others.get(name)
        if name in ignore or value == other:
            continue
        if isinstance(value, dict) and isinstance(other, dict) and value.keys() == other.keys():
            if nested := _first_difference(value, other, ignore):
                return nested
        else:
            return Difference(name, value, other)
    return None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the mapping in a YAML file, or in a JSON file, which is valid YAML.

    Raises:
        ValueError: the file is not valid YAML, or holds no mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8, expected a YAML file in UTF-8") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply, expected a mapping of fields") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: not a YAML file ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a mapping of fields, got {type(values).__name__}")
    return values


def explain(cls: type[Config], error: Any) -> str:
    """Describe one problem of a `pydantic.ValidationError`, and name the nearest valid field of an unknown one.

    Args:
        cls: class that was validated.
        error: item of `ValidationError.errors()`.
    """
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        message = str(error["msg"]).removeprefix("Value error, ")
        own = not name or error["type"] == "value_error"
        if not own and len(message) > _LONGEST_MESSAGE:  # one of pydantic that repeats the value
            message = f"{message[:_LONGEST_MESSAGE]}…"
        return message if own else f"{name}: {message}, got {_brief(error['input'])}"
    *path, key = [part for part in error["loc"] if isinstance(part, str)]
    fields = _fields_at(cls, path)
    near = difflib.get_close_matches(key, fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {sorted(fields)}"
    return f"unknown field {_brief(name)}, {hint}"


def _brief(value: Any) -> str:
    """Return the beginning of a value's text, as files of others may have long ones."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def _fields_at(cls: type[Config], path: list[str]) -> list[str]:
    """List the fields of the configuration classes at a path of field names and kinds."""
    classes = [cls]
    for part in path:
        of_kind = [member for member in classes if len(classes) > 1 and kind_of(member) == part]
        fields = [f for member in classes for name, f in member.model_fields.items() if part in all_names(name, f)]
        inner = [member for field in fields for member in members(field.annotation, nested=True)]
        classes = of_kind or inner or classes
    return sorted({name for member in classes for name in member.model_fields})


def all_names(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Return the name of a field, and its old names."""
    alias = field.validation_alias
    old = alias.choices if isinstance(alias, AliasChoices) else ()
    return (name, *(choice for choice in old if isinstance(choice, str) and choice != name))


def kind_of(cls: type[Config]) -> str | None:
    """Return the kind that identifies a class among the members of a union."""
    return cls.model_fields["kind"].default if "kind" in cls.model_fields else None


def is_config(annotation: Any) -> bool:
    """Return whether a type is a configuration class. Python 3.10 counts list[str] as a class, too."""
    return isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, Config)


def members(annotation: Any, nested: bool = False) -> list[type[Config]]:
    """Return the configuration classes that a field may hold.

    Args:
        annotation: type of the field.
        nested: also count the elements of lists and mappings.
    """
    if is_config(annotation):
        return [annotation]
    if nested or get_origin(annotation) in (Union, types.UnionType, Annotated):
        return [member for part in get_args(annotation) for member in members(part, nested)]
    return []
