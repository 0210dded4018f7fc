"""Checks before a run is started or resumed in a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from adaptok.checkpoints.folders import CONFIG_FILE
from adaptok.config.training import AnyConfig, dump_config
from adaptok.training.checkpoint_choice import Choice, choose_checkpoint, set_aside_damaged
from adaptok.training.checkpointing import RunState, list_checkpoints
from adaptok.training.optim import RunLength
from adaptok.utils.files import replacing

CONFIG_NAME = "config.yaml"
LENGTH = frozenset({"max_steps", "epochs"})
"""Fields with the length of a run, which may grow."""
WARMUP = frozenset({"optimizer.warmup_steps", "optimizer.warmup_epochs"})
"""Fields that follow from the length, and stay as they were when it grows."""
CHANGEABLE = frozenset(
    {
        "log_every",
        "validate_every",
        "fvd_every",
        "i3d_weights",
        "checkpoint_every",
        "keep_checkpoints",
        "trackers",
        "micro_batch_size",
        "gradient_accumulation_steps",
        "compile",
        "activation_checkpointing",
        "sharding",
        "lpips_weights",
        "lpips_alex_weights",
        "tokenizer",
        "samples",
        "data.validation",
        "data.validation_clips",
        "data.workers",
        "data.cache_gib",
        "data.max_broken_fraction",
    }
)
"""Fields that may differ when a run is resumed: they do not change what is trained, except for rounding."""


def check_folder(run: Path, config: AnyConfig, processes: int) -> bool:
    """Check that a run can be started or resumed in a folder. Writes nothing.

    A folder without checkpoints and models holds nothing to resume, so any configuration may start there.

    Returns:
        Whether the length of the run has changed.

    Raises:
        ValueError: the folder holds a run of another configuration. The message names the fields that differ.
        NotADirectoryError: there is a file in the place of the folder.
    """
    if run.exists() and not run.is_dir():
        raise NotADirectoryError(f"{run}: a file, expected a folder for the run")
    path = run / CONFIG_NAME
    if not path.exists() or not holds_results(run):
        return False
    try:
        old = _fields(type(config).load(path), processes)
    except ValueError as error:
        raise ValueError(
            f"{run} holds a run of another configuration ({error}); choose another folder, or remove this one"
        ) from None
    differences = dict(_differences(old, _fields(config, processes)))
    longer = not LENGTH.isdisjoint(differences)
    allowed = CHANGEABLE | LENGTH | (WARMUP if longer else frozenset())
    refused = [f"{name} is {a!r} there and {b!r} here" for name, (a, b) in differences.items() if name not in allowed]
    if refused:
        shown = "; ".join(refused[:5]) + (f"; and {len(refused) - 5} more" if len(refused) > 5 else "")
        raise ValueError(
            f"{run} holds a run of another configuration: {shown}; give the same values, or choose another folder"
        )
    return longer


def _fields(config: AnyConfig, processes: int) -> dict[str, Any]:
    """Return the fields of a configuration, with the batch size if it follows from others."""
    values = config.model_dump(mode="json")
    return {**values, "batch_size": config.batch_size or config.batch_plan(processes).batch_size}


def resumed_step(run: Path, config: AnyConfig, length: RunLength | None, processes: int) -> int:
    """Return the number of steps after which a run would be resumed, 0 for a new one.

    Args:
        length: length by the current configuration, if known.

    Raises:
        ValueError: the folder holds a run that cannot be resumed with this configuration, or whose checkpoints are all
            damaged.
        NotADirectoryError: there is a file in the place of the folder.
    """
    changed = check_folder(run, config, processes)
    checkpoint = choose_checkpoint(run).checkpoint
    if checkpoint is None:
        return 0
    state = RunState.load(checkpoint)
    if state.plan is not None and changed:
        resumed_length(run, RunLength(*state.plan), length)
    return state.step


def open_checkpoint(run: Path, accelerator: Accelerator) -> Choice:
    """Find the checkpoint to resume from. The main process sets damaged ones aside. All processes call this function.

    Raises:
        ValueError: every checkpoint is damaged.
    """
    choice = set_aside_damaged(run) if accelerator.is_main_process else None
    accelerator.wait_for_everyone()
    return choice or Choice(next(iter(list_checkpoints(run)[-1:]), None))


def holds_results(run: Path) -> bool:
    """Return whether a folder holds a checkpoint or a model of a run."""
    models = any((run / name / CONFIG_FILE).exists() for name in ("model", "best"))
    return models or any((run / "checkpoints").glob("step-*"))


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    for name in dict.fromkeys([*old, *new]):
        a, b, key = old.get(name), new.get(name), f"{prefix}{name}"
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{key}.")
        elif a != b:
            yield key, (a, b)


def resumed_length(run: Path, plan: RunLength, new: RunLength | None) -> RunLength:
    """Return the length of a run that is resumed.

    Args:
        run: folder of the run, for the message.
        plan: length that the run was started with.
        new: length by the current configuration, if that has changed.

    Raises:
        ValueError: the new length is below the old one.
    """
    if new is None:
        return plan
    if new.steps < plan.steps:
        raise ValueError(
            f"{run} holds a run of {plan.steps} steps, but {new.steps} are configured; a run can only become longer"
        )
    return RunLength(new.steps, plan.warmup_steps)


def write_config(run: Path, config: AnyConfig) -> None:
    """Write `config.yaml` into the folder of a run, which is created."""
    run.mkdir(parents=True, exist_ok=True)
    with replacing(run / CONFIG_NAME) as temporary:
        temporary.write_text(dump_config(config), encoding="utf-8")
