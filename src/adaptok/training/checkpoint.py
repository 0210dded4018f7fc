"""Run checkpoints: everything that a step depends on, written beside and renamed, without pickles.

A checkpoint is a folder `step-00001000` of `model.safetensors`, `average.safetensors` (the moving average, where one is
kept), `optimizer.safetensors`, the same two of the adversary, where there is one, and `state.json`. Data and random
state need no file: both are functions of the seed and the step. Only whole folders ever carry a `step-` name. Tensors
are whole, however many processes share them: a run may go on with another number of processes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adaptok.config.generator import GeneratorConfig
from adaptok.config.model import ModelConfig
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.training.sharding import like, local, whole

_NAME = re.compile(r"step-(\d{8})")
Tensors = dict[str, dict[str, Tensor]]
AnyModel = Model | GeneratorModel


def folders(run: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    found = [path for path in (run / "checkpoints").glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found)


def collect(
    modules: Mapping[str, nn.Module],
    average: Mapping[str, Tensor] | None,
    optimizers: Mapping[str, torch.optim.Optimizer],
    keep: bool,
) -> Tensors:
    """What is saved, by file, whole and on the CPU. Every process must ask; those that do not `keep` get nothing."""
    files: dict[str, Mapping[str, Tensor]] = {name: module.state_dict() for name, module in modules.items()}
    if average is not None:
        files["average"] = average
    files |= {name: _optimizer_tensors(optimizer) for name, optimizer in optimizers.items()}
    collected: Tensors = {file: {} for file in files}  # one that is empty so far too
    for file, tensors in files.items():
        for name, tensor in tensors.items():
            full = whole(tensor.detach())
            if keep:
                collected[file][name] = full.to("cpu", copy=True).contiguous()
    return collected


def save(run: Path, step: int, tensors: Tensors, extra: Mapping[str, Any], keep: int) -> Path:
    """Write the checkpoint of `step` and remove all but the `keep` newest."""
    parent = run / "checkpoints"
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(".writing-*"):
        shutil.rmtree(leftover)
    temporary, final = parent / f".writing-{step:08d}", parent / f"step-{step:08d}"
    temporary.mkdir()
    for name, file in tensors.items():
        save_file(file, temporary / f"{name}.safetensors")
    (temporary / "state.json").write_text(json.dumps({"step": step, **extra}), encoding="utf-8")
    for path in temporary.iterdir():  # a name must not reach the disk before what it names
        _flush(path)
    if final.exists():
        _remove(final)
    temporary.rename(final)
    _flush(parent)
    for old in folders(run)[:-keep]:
        _remove(old)
    return final


def restore(
    folder: Path,
    modules: Mapping[str, nn.Module],
    average: dict[str, Tensor] | None,
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> dict[str, Any]:
    """Load a checkpoint in place and return its `state.json`."""
    for name, module in modules.items():
        tensors, own = load_file(folder / f"{name}.safetensors"), module.state_dict()
        module.load_state_dict({key: like(tensor, own[key]) for key, tensor in tensors.items()})
    if average is not None:
        for name, tensor in load_file(folder / "average.safetensors").items():
            local(average[name]).copy_(local(like(tensor, average[name])))
    for name, optimizer in optimizers.items():
        tensors = load_file(folder / f"{name}.safetensors")
        for index, parameter in enumerate(_parameters(optimizer)):
            prefix = f"{index}."
            values = {key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)}
            values = {
                key: t.to(parameter.device) if t.ndim == 0 and parameter.ndim else like(t, parameter)
                for key, t in values.items()
            }
            if values:
                optimizer.state[parameter] = values
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return state


def build(kind: str, config: Mapping[str, Any], source: str = "configuration") -> AnyModel:
    """A model with random weights from the configuration that a checkpoint keeps.

    Args:
        kind: "generator", or "model" for a tokenizer and what belongs to it.
    """
    if kind == "generator":
        return GeneratorModel(GeneratorConfig.parse(config, source))
    return Model(ModelConfig.parse(config, source))


def averaged(folder: Path) -> tuple[AnyModel, int]:
    """The model of a checkpoint with its averaged weights, where there are any, and its step."""
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    model = build(state.get("kind", "model"), state["model"], str(folder / "state.json"))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    if (folder / "average.safetensors").exists():
        model.load_state_dict(load_file(folder / "average.safetensors"), strict=False)
    return model.eval(), int(state["step"])


def _remove(folder: Path) -> None:
    """Remove a checkpoint; renamed first, so that a folder with its name is always whole."""
    leaving = folder.with_name(f".writing-old-{folder.name}")
    folder.rename(leaving)
    shutil.rmtree(leaving)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{index}.{name}"] = torch.as_tensor(value)
    return tensors
