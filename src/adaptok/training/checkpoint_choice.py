"""Which checkpoint a run is resumed from: the newest whole one whose weights have proven usable.

A checkpoint is whole if its files are those that were written: checksums are compared, and the files of old
checkpoints, which have no checksums, are parsed. A checkpoint is known to be usable once the loss and the gradient of
the step after it are finite. Others are set aside under another name, so that the one before them is the newest, and
nothing is lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from adaptok.training.checkpointing import (
    EXPORTED_FILE,
    STATE_FILE,
    RunState,
    list_checkpoints,
    remove_old_checkpoints,
    step_folder,
)
from adaptok.utils.checksums import CHECKSUMS_FILE, check_files, read_checksums

DAMAGED, DIVERGED = "damaged", "diverged"
"""First words of the names of checkpoints that are set aside."""


class CheckpointGuard:
    """Removes old checkpoints once the newest is known to be usable, and sets the newest aside if it is not.

    Args:
        run: folder of the run.
        keep: number of checkpoints to keep.
        is_main: whether this process writes; others only raise the same errors.
    """

    def __init__(self, run: Path, keep: int, is_main: bool) -> None:
        self._run, self._keep, self._is_main = run, keep, is_main
        self._unproven = False

    def saved(self) -> None:
        """Note that a checkpoint was saved."""
        self._unproven = True

    def proven(self) -> None:
        """Note that the newest checkpoint is usable, as a step has followed it, or that there are no more steps."""
        if self._unproven and self._is_main:
            remove_old_checkpoints(self._run, self._keep)
        self._unproven = False

    @contextmanager
    def checking(self, step: int) -> Iterator[None]:
        """Context that complements a FloatingPointError of its body by what there is to resume from, and what to do.

        Args:
            step: number of steps that led to the weights. A checkpoint of them is set aside.
        """
        try:
            yield
        except FloatingPointError as error:
            advice = self._set_aside(step) if self._is_main else "the run ends"
            raise FloatingPointError(f"{error}; {advice}") from None

    def _set_aside(self, step: int) -> str:
        texts = []
        checkpoint = step_folder(self._run, step)
        if checkpoint.exists():
            aside = set_aside(checkpoint, DIVERGED)
            texts.append(f"the checkpoint of these weights is not usable, and renamed to {aside}")
        left = list_checkpoints(self._run)
        texts.append(f"the last usable checkpoint is {left[-1]}" if left else f"{self._run} has no usable checkpoint")
        return "; ".join([*texts, "check the data, or start a new run with a lower optimizer.lr"])


class Choice(NamedTuple):
    """The newest whole checkpoint of a run, or None if it has no checkpoints; and damaged ones after it.

    warning: What is wrong with the damaged ones, in a sentence.
    """

    checkpoint: Path | None
    damaged: tuple[Path, ...] = ()
    warning: str | None = None


def choose_checkpoint(run: Path) -> Choice:
    """Find the newest whole checkpoint of a run. Writes nothing.

    Raises:
        ValueError: the run has checkpoints, and all are damaged.
    """
    damaged, problems = list[Path](), list[str]()
    checkpoints = list_checkpoints(run)
    for checkpoint in reversed(checkpoints):
        problem = find_damage(checkpoint)
        if problem is None:
            if not damaged:
                return Choice(checkpoint)
            return Choice(checkpoint, tuple(damaged), f"{'; '.join(problems)}; {checkpoint} is used instead")
        damaged.append(checkpoint)
        problems.append(problem)
    if damaged:
        raise ValueError(
            f"{run}: every checkpoint is damaged ({problems[0]}); restore one from a copy, or choose another folder"
        )
    return Choice(None)


def find_damage(checkpoint: Path) -> str | None:
    """Return in a clause what is wrong with a checkpoint, or None if it is whole."""
    try:
        names = {path.name for path in checkpoint.iterdir()} - {CHECKSUMS_FILE, EXPORTED_FILE}
        hashes = read_checksums(checkpoint)
        if hashes is None:
            for name in sorted(names):
                if name.endswith(".safetensors"):
                    with safe_open(checkpoint / name, "pt"):  # compares sizes
                        pass
        else:
            check_files(checkpoint, hashes)
            if missing := {STATE_FILE, "model.safetensors"} - hashes.keys():
                return f"{checkpoint}: {min(missing)} is missing"
        if not (checkpoint / "model.safetensors").exists():
            return f"{checkpoint}: model.safetensors is missing"
        RunState.load(checkpoint)
    except FileNotFoundError as error:
        return f"{checkpoint}: {Path(str(error.filename)).name} is missing"
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        return f"{checkpoint}: damaged ({type(error).__name__}: {' '.join(str(error).split())})"
    except (ValueError, OSError) as error:
        return " ".join(str(error).split()).partition(";")[0]
    return None


def set_aside_damaged(run: Path) -> Choice:
    """Find the newest whole checkpoint of a run, and set aside the damaged ones after it.

    Errors are those of `choose_checkpoint`.

    Returns:
        The checkpoint, and a warning that names the new paths of the damaged ones.
    """
    choice = choose_checkpoint(run)
    names = [set_aside(checkpoint, DAMAGED).name for checkpoint in choice.damaged]
    return choice._replace(warning=f"{choice.warning}; kept as {', '.join(names)}") if names else choice


def set_aside(checkpoint: Path, why: str) -> Path:
    """Rename a checkpoint, so that it is not used any more. Returns its new path.

    Args:
        checkpoint: folder of a checkpoint.
        why: first word of the new name, `DAMAGED` or `DIVERGED`.
    """
    number, step = 0, checkpoint.name.partition("-")[2]
    new = checkpoint.with_name(f"{why}-{step}")
    while new.exists():
        number += 1
        new = checkpoint.with_name(f"{why}-{step}-{number}")
    checkpoint.rename(new)
    return new
