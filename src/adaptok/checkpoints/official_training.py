"""Checkpoints (`.pth`) of the official training program.

A checkpoint is a pickle of a dictionary. Its entry `model` holds the name of the model's class, its arguments (`args`)
and its weights (`sd`); the others are the state of the training. It is read with `torch.load(weights_only=True)`, which
runs no code: it creates tensors, numbers, strings and containers, and refuses every other object. Two types that the
official program stores as well are allowed: NumPy arrays (states of random number generators), and `EasyDict`, which is
read as an `OrderedDict`.
"""

from __future__ import annotations

import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptok.config.generator import GENERATOR_SIZES

SUFFIXES = (".pth", ".pt")
_WRAPPERS = ("module", "_orig_mod")  # of DistributedDataParallel and torch.compile
_SIZE_PREFIX = "llama-abs-"


def read_training_checkpoint(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint of the official training.

    Returns:
        The configuration as in the official `config.json`, and the weights under their official names.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, holds objects that only running code could create, or is no checkpoint of the
            official program.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with torch.serialization.safe_globals(_allowed()):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        if refused := re.search(r"GLOBAL (\S+) was not an allowed global", str(error)):
            raise ValueError(
                f"{path}: holds a {refused[1]}, which is refused because reading it could run code; save its entry"
                " 'model' alone"
            ) from None
        raise ValueError(f"{path}: damaged, or not a checkpoint of the official training") from None
    except (RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: damaged, or not a checkpoint ({str(error).splitlines()[0]})") from None
    model = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(model, Mapping) or not {"name", "args", "sd"} <= model.keys():
        raise ValueError(
            f"{path}: expected a checkpoint of the official training, with the entries name, args and sd in 'model'"
        )
    document = {name: _plain(value) for name, value in model["args"].items()}
    return _with_size(document, str(model["name"])), {_unwrapped(name): value for name, value in model["sd"].items()}


def _allowed() -> list[Any]:
    """List the types that a checkpoint may contain besides those that torch allows."""
    reconstruct, dtypes = (
        np.array(0).__reduce__()[0],
        {type(np.dtype(name)) for name in ("uint32", "uint64", "float64")},
    )
    return [
        (reconstruct, "numpy.core.multiarray._reconstruct"),  # the name before NumPy 2
        (reconstruct, "numpy._core.multiarray._reconstruct"),
        np.ndarray,
        np.dtype,
        *dtypes,
        (OrderedDict, "easydict.EasyDict"),
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return list(map(_plain, value)) if isinstance(value, list | tuple) else value


def _with_size(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Add the width, depth and heads of a generator, which the name of its class determines."""
    size = name.removeprefix(_SIZE_PREFIX)
    if size == name or size not in GENERATOR_SIZES:
        return document
    width, depth, heads = GENERATOR_SIZES[size]
    return {"dim": width, "n_layer": depth, "n_head": heads, **document}


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)
