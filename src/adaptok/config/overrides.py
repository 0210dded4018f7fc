"""Set fields of a configuration by dotted keys, and list these keys with their types and descriptions."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml

from adaptok.config.base import Config, all_names, is_config, kind_of, members

ConfigT = TypeVar("ConfigT", bound=Config)
NULLS = ("null", "none", "None", "~")


class ConfigField(NamedTuple):
    """A field that can be set."""

    key: str
    """Dotted key, for example "optimizer.lr"."""
    type: str
    """Type, for example "adamw | muon"."""
    default: Any
    """Value in the listed configuration. For a kind that is not selected there, the default of that kind."""
    help: str
    """Description of the field."""


def set_fields(config: ConfigT, values: Mapping[str, Any]) -> ConfigT:
    """Return a copy of a configuration in which some fields are replaced.

    Changing the `kind` of a component resets its fields to the defaults of the new kind, except those that both kinds
    inherit from a common base class. Setting a field of a component that is null creates the component.

    Args:
        values: new values by dotted key, in the spelling of `resolve_key`. Strings are parsed as YAML, unless the field
            is a string.

    Raises:
        ValueError: a value is not allowed.
    """
    tree = config.model_dump()
    paths = {tuple(key.split(".")): value for key, value in values.items()}
    for path, value in sorted(paths.items(), key=lambda item: (len(item[0]), item[0][-1] != "kind")):
        _assign(tree, type(config), path, value)
    return type(config).parse(tree)


def resolve_key(cls: type[Config], key: str) -> str:
    """Return the canonical spelling of a dotted key: with underscores, and with the current names of renamed fields.

    Raises:
        ValueError: there is no such key. The message names the nearest one.
    """
    path: list[str] = []
    models, annotation = [cls], None
    for part in key.strip().replace("-", "_").split("."):
        fields = [item for model in models for item in model.model_fields.items()]
        names = {alias: name for name, field in fields for alias in all_names(name, field)}
        if not models and get_origin(annotation) is dict:
            names = {part: part}
        if part not in names:
            raise ValueError(f"unknown key {key!r}, {_suggestion(cls, path, part, names)}")
        path.append(names[part])
        annotations = [field.annotation for name, field in fields if name == path[-1]]
        annotation = annotations[0] if annotations else None
        models = [member for own in annotations for member in members(own)]
    return ".".join(path)


def _suggestion(cls: type[Config], path: list[str], part: str, names: Mapping[str, str]) -> str:
    if not names:
        return f"because {'.'.join(path)!r} has no fields"
    elsewhere = {field.key.rpartition(".")[2]: field.key for field in reversed(list_fields(cls))}
    if part not in elsewhere and (near := difflib.get_close_matches(part, names, n=1)):
        return f"did you mean {'.'.join([*path, names[near[0]]])!r}?"
    if near := difflib.get_close_matches(part, elsewhere, n=1):
        return f"did you mean {elsewhere[near[0]]!r}?"
    return f"expected one of {', '.join(sorted({'.'.join([*path, name]) for name in names.values()}))}"


def _assign(tree: dict[str, Any], cls: type[Config], path: tuple[str, ...], value: Any) -> None:
    """Replace one value in the nested dictionary of a configuration."""
    node, candidates, annotation = tree, [cls], None
    for depth, part in enumerate(path):
        selected = [model for model in candidates if len(candidates) == 1 or kind_of(model) == node.get("kind")]
        if part == "kind" and len(candidates) > 1:
            _switch_kind(node, candidates, value, ".".join(path))
            return
        if candidates and not any(part in model.model_fields for model in selected):
            kinds = " or ".join(str(kind_of(model)) for model in candidates if part in model.model_fields)
            owner = ".".join(path[:depth])
            raise ValueError(
                f"{'.'.join(path)} exists only for {owner}.kind {kinds}, which is {node.get('kind')!r} here; set"
                f" {owner}.kind too"
            )
        annotation = selected[0].model_fields[part].annotation if selected else None
        if depth == len(path) - 1:
            node[part] = parse_value(value, annotation, ".".join(path))
            return
        candidates = members(annotation)
        if node.get(part) is None:
            node[part] = {} if len(candidates) < 2 else {"kind": kind_of(candidates[0])}
        node = node[part]


def _switch_kind(node: dict[str, Any], candidates: list[type[Config]], kind: str, key: str) -> None:
    classes = {kind_of(model): model for model in candidates}
    if kind not in classes:
        raise ValueError(f"{key} {kind!r}, expected one of {', '.join(map(str, classes))}")
    if node.get("kind") == kind:
        return
    old, new = classes.get(node.get("kind")), classes[kind]
    bases = [] if old is None else [base for base in old.__mro__ if issubclass(base, Config) and issubclass(new, base)]
    shared = {name for base in bases for name in base.model_fields}
    values = {name: value for name, value in node.items() if name in shared}
    node.clear()
    node.update({"kind": kind, **values})


def parse_value(value: Any, annotation: Any, key: str) -> Any:
    """Convert the text of a value according to the type of its field. Values that are not strings stay as they are.

    Raises:
        ValueError: the text is not valid YAML.
    """
    if not isinstance(value, str):
        return value
    allowed = _union(annotation)
    if type(None) in allowed and value in NULLS:
        return None
    if any(part is str or (get_origin(part) is Literal and value in get_args(part)) for part in allowed):
        return value
    sequences = [part for part in allowed if get_origin(part) is tuple]
    if sequences and not value.lstrip().startswith("["):
        return [item.strip() for item in value.split(",")] if value.strip() else []
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"{key} {value!r} is not valid YAML ({str(error).splitlines()[0]}); quote it") from None


def _union(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        return _union(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(part for member in get_args(annotation) for part in _union(member))
    return (annotation,)


def list_fields(config: Config | type[Config], prefix: str = "") -> list[ConfigField]:
    """List all keys of a configuration, or of a class of configurations, with those of all kinds of its unions."""
    return [field for _, field in sorted({field.key: field for field in _iter_fields(config, prefix)}.items())]


def _iter_fields(config: Config | type[Config], prefix: str) -> Iterator[ConfigField]:
    cls = config if isinstance(config, type) else type(config)
    for name, info in cls.model_fields.items():
        default = info.get_default(call_default_factory=True) if isinstance(config, type) else getattr(config, name)
        default = None if info.is_required() and isinstance(config, type) else default
        key, inner = f"{prefix}{name}", members(info.annotation)
        for member in sorted(inner, key=lambda member: isinstance(default, member)):  # the selected one overwrites
            for field in _iter_fields(default if isinstance(default, member) else member, f"{key}."):
                kinds = " | ".join(str(kind_of(member)) for member in inner)
                yield field._replace(type=kinds) if field.key == f"{key}.kind" and len(inner) > 1 else field
        if not inner or type(None) in _union(info.annotation):
            yield ConfigField(key, type_name(info.annotation), default, descriptions(cls).get(name, ""))


def type_name(annotation: Any) -> str:
    """Describe a type in the notation of the help text, for example "int | null" or "[float, float]"."""
    names = []
    for part in _union(annotation):
        if part is type(None):
            names.append("null")
        elif get_origin(part) is Literal:
            names += [str(value) for value in get_args(part)]
        elif get_origin(part) is tuple:
            inner = get_args(part)
            names.append(f"[{', '.join('...' if item is Ellipsis else type_name(item) for item in inner)}]")
        elif get_origin(part) is dict:
            names.append("{name: value}")
        elif is_config(part):
            names.append(f"{{kind: {kind_of(part)}, ...}}" if kind_of(part) else "{...}")
        else:
            names.append(part.__name__)
    return " | ".join(dict.fromkeys(names))


@cache
def descriptions(cls: type) -> dict[str, str]:
    """Return the docstrings that follow the fields of a class and of its base classes in this package."""
    texts: dict[str, str] = {}
    package = __name__.partition(".")[0]
    for base in reversed([base for base in cls.__mro__ if base.__module__.partition(".")[0] == package]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                assert isinstance(field.target, ast.Name)
                texts[field.target.id] = " ".join(str(text.value.value).split())
    return texts
