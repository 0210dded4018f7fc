"""Recognizing the folders that this program writes, by the names of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"

FolderKind = Literal["model", "run", "token dataset", "report"]

_FILES: dict[FolderKind, tuple[tuple[str, ...], ...]] = {  # each kind has all files of one of these groups
    "model": ((CONFIG_FILE, WEIGHTS_FILE),),
    "run": (("config.yaml", "checkpoints"), ("config.yaml", "metrics.jsonl")),
    "token dataset": (("plan.json", "*.parquet"),),
    "report": (("report.json",), ("plan.json", "parts")),
}
_ADVICE: dict[FolderKind, str] = {
    "model": "",
    "run": "a training run, whose model is in its folder 'model' or is written by 'adaptok export'",
    "token dataset": "a token dataset",
    "report": "the report of an evaluation",
}


def folder_kind(folder: str | Path) -> FolderKind | None:
    """Return what a folder holds: a model, a training run, a token dataset or a report. None if it is none of these."""
    folder = Path(folder)
    for kind in ("report", "model", "run", "token dataset"):
        if any(all(any(folder.glob(name)) for name in names) for names in _FILES[kind]):
            return kind
    return None


def describe_folder(folder: str | Path) -> str:
    """Return a clause for error messages that says what a folder holds instead of a model; empty if unknown."""
    kind = folder_kind(folder)
    return f"; this is {_ADVICE[kind]}" if kind is not None and _ADVICE[kind] else ""
