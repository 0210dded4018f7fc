"""Text about the fields of a training configuration, for `adaptok train STAGE --help`."""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import Any

from adaptok.config.choices import Stage


def describe_fields(stage: Stage) -> str:
    """List every field of a stage's configuration: key, type, default and description."""
    from adaptok.config.training import config_fields

    width = min(shutil.get_terminal_size().columns, 120)
    lines = [
        f"Fields of the configuration of a {stage}. Set them with --KEY VALUE, --set KEY=VALUE or in a YAML file.",
        "'--print-config' prints the values of a preset.",
        "",
    ]
    for entry in config_fields(stage):
        lines.append(f"--{entry.key.replace('_', '-')} {entry.type}{_default(entry.default)}")
        lines += textwrap.wrap(entry.help, width, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


def _default(value: Any) -> str:
    if value is None or str(value) == "PydanticUndefined":
        return ""
    try:
        return f" (default: {json.dumps(value)})"
    except TypeError:
        return ""
