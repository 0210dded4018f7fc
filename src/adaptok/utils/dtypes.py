"""Names of floating-point formats. Nothing here imports torch, so that the command line can read them at once."""

from __future__ import annotations

DTYPE_ALIASES = {"fp32": "float32", "float": "float32", "bf16": "bfloat16", "fp16": "float16", "half": "float16"}
"""Usual short names of floating-point formats."""


def expand_dtype(name: str) -> str:
    """Return the full name of a floating-point format. Other names are returned without a leading "torch."."""
    name = name.removeprefix("torch.")
    return DTYPE_ALIASES.get(name, name)
