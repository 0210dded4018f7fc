"""Older spellings of the command line, and short names of floating-point formats.

They are consulted only after the present grammar has refused a command line, so they never change the meaning of one
that is valid today.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import get_args

from adaptok.config.choices import Stage
from adaptok.utils.dtypes import expand_dtype

RENAMED_FLAGS = {
    "--out": "--output",
    "--budgets": "--budget",
    "--tokens": "--budget",
    "--least": "--min-tokens",
    "--most": "--max-tokens",
    "--batch": "--batch-size",
    "--warm": "--warmup-steps",
    "--layout": "--to",
}
_EVALUATIONS = ("reconstruction", "generation", "prediction", "files")


def modernize(arguments: Sequence[str]) -> list[str]:
    """Rewrite older spellings as present ones; a command line without any is returned unchanged."""
    words = list(arguments)
    if words[:1] == ["train"] and words[1:2] and words[1] not in get_args(Stage):
        words = _move_stage(words)
    if words[:1] == ["evaluate"] and words[1:2] and words[1] not in _EVALUATIONS:
        words = _name_evaluation(words)
    if words[:2] == ["data", "shapes"]:
        words[1] = "synthesize"
    words = _expand_dtypes([_rename(word) for word in words])
    return _move_budgets(words) if words[:1] == ["reconstruct"] else words


def _rename(word: str) -> str:
    name, equals, value = word.partition("=")
    return RENAMED_FLAGS.get(name, name) + equals + value


def _expand_dtypes(words: list[str]) -> list[str]:
    """`--dtype bf16` as `--dtype bfloat16`. The flag of a benchmark takes several values."""
    expanded: list[str] = []
    is_open = False
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--dtype" and equals:
            word = f"{name}={expand_dtype(value)}"
        is_open = word == "--dtype" or (is_open and not word.startswith("-"))
        expanded.append(expand_dtype(word) if is_open else word)
    return expanded


def _move_stage(words: list[str]) -> list[str]:
    """`train --config tiny tokenizer` as `train tokenizer --config tiny`."""
    stage = next((word for word in words if word in get_args(Stage)), None)
    if stage is None:
        return words
    words.remove(stage)
    return [words[0], stage, *words[1:]]


def _name_evaluation(words: list[str]) -> list[str]:
    """`evaluate DATA` as `evaluate reconstruction DATA`, and likewise for the other evaluations."""
    kind = "reconstruction"
    if "--reference" in words or "--prediction" in words:
        kind = "files"
    elif "--samples" in words:
        kind = "generation"
    if "--generation" in words:
        place = words.index("--generation")
        kind = "prediction" if words[place + 1 : place + 2] == ["frame"] else kind
        del words[place : place + 2]
    return [words[0], kind, *words[1:]]


def _move_budgets(words: list[str]) -> list[str]:
    """`reconstruct --budget 192 IN OUT` with the budgets at the end, where they cannot take up the paths."""
    rest: list[str] = []
    budgets: list[str] = []
    is_open = False
    for word in words:
        name, _, value = word.partition("=")
        if name == "--budget":
            budgets += [value] if value else []
            is_open = not value
        elif is_open and re.fullmatch(r"[\d.,]+", word):
            budgets.append(word)
        elif is_open and not budgets:
            return words  # a budget that is no number; the parser reports it
        else:
            rest.append(word)
            is_open = False
    return [*rest, "--budget", *budgets] if budgets else words
