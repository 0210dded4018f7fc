"""Checkpoints of runs: everything that a step depends on, replaced atomically and without pickles.

A checkpoint is a folder `checkpoints/step-00001000` with

- `model.safetensors`, and `average.safetensors` with the moving average of the weights, if there is one;
- `optimizer.safetensors`, and a file for each further optimizer;
- `adversary.safetensors` and `adversary-optimizer.safetensors`, if the run has a discriminator;
- `state.json`, the fields of `RunState`;
- `SHA256SUMS` with the checksums of all of these, which are verified before a run is resumed;
- an empty file `exported`, if the model was exported at the end of the run.

Data and random numbers need no file, because both are functions of the seed and the step. Folders are written under
another name and renamed when they are complete. Tensors are stored whole, so that a run may resume with another number
of processes. `checkpoint_choice` says which checkpoint a run is resumed from.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adaptok.config.generator import GeneratorConfig
from adaptok.config.model import ModelConfig
from adaptok.models.generator import GeneratorModel
from adaptok.models.model import Model
from adaptok.training.sharding import gather, local_part, shard_like
from adaptok.utils.checksums import write_checksums
from adaptok.utils.files import raise_if_full, sync

STEP_FOLDER = re.compile(r"step-(\d{8})")
STATE_FILE, EXPORTED_FILE = "state.json", "exported"
Tensors = dict[str, dict[str, Tensor]]
AnyModel = Model | GeneratorModel


@dataclass(frozen=True)
class RunState:
    """Contents of `state.json`."""

    step: int
    """Number of steps done."""
    model: dict[str, Any]
    """Configuration of the model."""
    kind: str = "model"
    """Kind of model, for `build_model`."""
    best: float | None = None
    """Best validation score so far, if there is one."""
    plan: tuple[int, int] | None = None
    """Number of steps of the whole run, and of its warm-up. They stay the same if the number of files or processes
    changes."""
    broken: dict[str, str] = field(default_factory=dict)
    """Files that could not be read, with the reason."""
    validated: int = 0
    """Last step that was validated."""
    loss_scale: tuple[float, int] | None = None
    """State of the loss scaler, if there is one."""
    exported: bool = False
    """Whether the model was exported at the end of the run."""

    @classmethod
    def load(cls, checkpoint: Path) -> RunState:
        """Read the state of a checkpoint."""
        values = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
        values.setdefault("validated", values["step"])  # old checkpoints were saved after validation
        if values.get("best") == -math.inf:  # how old checkpoints say that there is no score
            values["best"] = None
        values["exported"] = values.get("exported", False) or (checkpoint / EXPORTED_FILE).exists()
        return cls(**{each.name: values[each.name] for each in fields(cls) if each.name in values})

    def to_json(self) -> str:
        """Return the content of `state.json`."""
        return json.dumps(asdict(self), allow_nan=False)


def list_checkpoints(run: Path) -> list[Path]:
    """List the complete checkpoints of a run, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob("step-*") if STEP_FOLDER.fullmatch(path.name))


def step_folder(run: Path, step: int) -> Path:
    """Return the folder of the checkpoint after a number of steps."""
    return run / "checkpoints" / f"step-{step:08d}"


def collect_tensors(
    modules: Mapping[str, nn.Module],
    average: Mapping[str, Tensor] | None,
    optimizers: Mapping[str, torch.optim.Optimizer],
    keep: bool,
) -> Tensors:
    """Gather the tensors of a checkpoint by file, whole and on the CPU.

    Every process must call this function; those that do not `keep` the tensors get none.
    """
    files: dict[str, Mapping[str, Tensor]] = {name: module.state_dict() for name, module in modules.items()}
    if average is not None:
        files["average"] = average
    files |= {name: _optimizer_tensors(optimizer) for name, optimizer in optimizers.items()}
    collected: Tensors = {file: {} for file in files}  # also files without tensors
    for file, tensors in files.items():
        for name, tensor in tensors.items():
            full = gather(tensor.detach())
            if keep:
                collected[file][name] = full.to("cpu", copy=True).contiguous()
    return collected


def save_checkpoint(run: Path, tensors: Tensors, state: RunState) -> Path:
    """Write a checkpoint.

    Raises:
        FloatingPointError: a weight is not finite. Nothing is written.
        WriteError: the disk is full.
    """
    _check_finite(tensors, state.step)
    parent = run / "checkpoints"
    parent.mkdir(parents=True, exist_ok=True)
    for leftover in parent.glob(".writing-*"):
        shutil.rmtree(leftover)
    temporary, final = parent / f".writing-{state.step:08d}", step_folder(run, state.step)
    try:
        temporary.mkdir()
        for name, file in tensors.items():
            save_file(file, temporary / f"{name}.safetensors")
        (temporary / STATE_FILE).write_text(state.to_json(), encoding="utf-8")
        write_checksums(temporary, [path.name for path in temporary.iterdir()])
        for path in (*temporary.iterdir(), temporary):  # contents must reach the disk before the name
            sync(path)
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise_if_full(error, final)
        raise
    if final.exists():
        _remove(final)
    temporary.rename(final)
    sync(parent)
    return final


def remove_old_checkpoints(run: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints of a run."""
    for old in list_checkpoints(run)[:-keep]:
        _remove(old)


def mark_exported(run: Path) -> None:
    """Note in the last checkpoint of a run that its model was exported."""
    (list_checkpoints(run)[-1] / EXPORTED_FILE).touch()


def _check_finite(tensors: Tensors, step: int) -> None:
    for file, values in tensors.items():
        wrong = [name for name, tensor in values.items() if not tensor.isfinite().all()]
        if wrong:
            raise FloatingPointError(
                f"after step {step}, {wrong[0]} of {file} is infinite or not a number, so no checkpoint is written;"
                " start a new run with a lower optimizer.lr"
            )


def restore_checkpoint(
    checkpoint: Path,
    modules: Mapping[str, nn.Module],
    average: dict[str, Tensor] | None,
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Load the tensors of a checkpoint in place."""
    for name, module in modules.items():
        tensors, own = load_file(checkpoint / f"{name}.safetensors"), module.state_dict()
        module.load_state_dict({key: shard_like(tensor, own[key]) for key, tensor in tensors.items()})
    if average is not None:
        for name, tensor in load_file(checkpoint / "average.safetensors").items():
            local_part(average[name]).copy_(local_part(shard_like(tensor, average[name])))
    for name, optimizer in optimizers.items():
        tensors = load_file(checkpoint / f"{name}.safetensors")
        for index, parameter in enumerate(_optimizer_parameters(optimizer)):
            prefix = f"{index}."
            values = {key[len(prefix) :]: t for key, t in tensors.items() if key.startswith(prefix)}
            values = {
                key: t.to(parameter.device) if t.ndim == 0 and parameter.ndim else shard_like(t, parameter)
                for key, t in values.items()
            }
            if values:
                optimizer.state[parameter] = values


def build_model(kind: str, config: Mapping[str, Any], source: str = "configuration") -> AnyModel:
    """Create a model with random weights.

    Args:
        kind: "generator", or "model" for a tokenizer with its scorer and prior.
        config: configuration of the model.
        source: where the configuration comes from, for error messages.
    """
    if kind == "generator":
        return GeneratorModel(GeneratorConfig.parse(config, source))
    return Model(ModelConfig.parse(config, source))


def load_averaged_model(checkpoint: Path) -> tuple[AnyModel, int]:
    """Load the model of a checkpoint, with averaged weights if there are any, and its step."""
    state = RunState.load(checkpoint)
    model = build_model(state.kind, state.model, str(checkpoint / STATE_FILE))
    model.load_state_dict(load_file(checkpoint / "model.safetensors"))
    if (checkpoint / "average.safetensors").exists():
        model.load_state_dict(load_file(checkpoint / "average.safetensors"), strict=False)
    return model.eval(), state.step


def _remove(folder: Path) -> None:
    """Remove a checkpoint. It is renamed first, so that folders with the name of a checkpoint are always complete."""
    leaving = folder.with_name(f".writing-old-{folder.name}")
    folder.rename(leaving)
    shutil.rmtree(leaving)


def _optimizer_parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for index, parameter in enumerate(_optimizer_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{index}.{name}"] = torch.as_tensor(value)
    return tensors
