"""Run checkpoints: everything that a step depends on, written beside and renamed, without pickles.

A checkpoint is a folder `step-00001000` of `model.safetensors`, `average.safetensors` (the moving average, where one is
kept), `optimizer.safetensors`, the same two of the adversary, where there is one, and `state.json`. Data and random
state need no file: both are functions of the seed and the step. Only whole folders ever carry a `step-` name.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adaptok.configuration import ModelConfig
from adaptok.models.model import Model

_NAME = re.compile(r"step-(\d{8})")


def folders(run: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    found = [path for path in (run / "checkpoints").glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found)


def save(
    run: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    average: Mapping[str, Tensor] | None,
    optimizers: Mapping[str, torch.optim.Optimizer],
    extra: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write the checkpoint of `step` and remove all but the `keep` newest."""
    parent = run / "checkpoints"
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(".writing-*"):
        shutil.rmtree(leftover)
    temporary, final = parent / f".writing-{step:08d}", parent / f"step-{step:08d}"
    temporary.mkdir()
    for name, module in modules.items():
        save_file(_plain(module.state_dict()), temporary / f"{name}.safetensors")
    if average is not None:
        save_file(_plain(average), temporary / "average.safetensors")
    for name, optimizer in optimizers.items():
        save_file(_optimizer_tensors(optimizer), temporary / f"{name}.safetensors")
    (temporary / "state.json").write_text(json.dumps({"step": step, **extra}), encoding="utf-8")
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    for old in folders(run)[:-keep]:
        old.rename(parent / f".writing-old-{old.name}")  # at once: a folder with this name is always whole
        shutil.rmtree(parent / f".writing-old-{old.name}")
    return final


def restore(
    folder: Path,
    modules: Mapping[str, nn.Module],
    average: dict[str, Tensor] | None,
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> dict[str, Any]:
    """Load a checkpoint in place and return its `state.json`."""
    for name, module in modules.items():
        module.load_state_dict(load_file(folder / f"{name}.safetensors"))
    if average is not None:
        for name, tensor in load_file(folder / "average.safetensors").items():
            average[name].copy_(tensor)
    for name, optimizer in optimizers.items():
        tensors = load_file(folder / f"{name}.safetensors")
        for index, parameter in enumerate(_parameters(optimizer)):
            prefix = f"{index}."
            values = {key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)}
            # counters of steps are kept on the CPU, as the optimizer does
            values = {key: t if t.ndim == 0 else t.to(parameter.device) for key, t in values.items()}
            if values:
                optimizer.state[parameter] = values
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return state


def averaged(folder: Path) -> tuple[Model, int]:
    """The model of a checkpoint with its averaged weights, where there are any, and its step."""
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    model = Model(ModelConfig.parse(state["model"], str(folder / "state.json")))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    if (folder / "average.safetensors").exists():
        model.load_state_dict(load_file(folder / "average.safetensors"), strict=False)
    return model.eval(), int(state["step"])


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{index}.{name}"] = torch.as_tensor(value).clone()
    return tensors


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.items()}
