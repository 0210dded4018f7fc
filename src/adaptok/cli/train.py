"""`adaptok train STAGE --config FILE|PRESET --data.train DIR … --out RUN`; a generator is trained on token datasets."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro
from pydantic import ValidationError

from adaptok.cli.common import progress
from adaptok.config.base import explain
from adaptok.config.training import (
    AnyConfig,
    GeneratorTrainingConfig,
    TrainingConfig,
    load_config,
    override,
)

Stage = Literal["tokenizer", "scorer", "generator"]


@dataclass(kw_only=True)
class Train:
    """Train a tokenizer, a scorer for one, or a generator of its ids. A run that was stopped goes on where it was.

    Runs on one process as it is, and on several under `torchrun` or `accelerate launch -m adaptok`.
    """

    what: tyro.conf.Positional[Stage]
    """What to train."""
    config: str = "tiny"
    """YAML file, or a preset: tiny, small or base. All fields below override it."""
    out: Path | None = None
    """Folder of the run: configuration, metrics, samples, checkpoints, and the model at the end; runs/CONFIG-STAGE if
    not given."""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on where the run in the folder stopped; never: it is an error that there is one."""
    dry_run: bool = False
    """Check configuration and data, and tell sizes, memory and work of a step, without training."""
    json: bool = False
    """Print one JSON object on stdout at the end."""
    quiet: bool = False
    """No lines of metrics on stderr."""
    training: Annotated[AnyConfig, tyro.conf.arg(name="")]
    """The configuration."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"{Path(self.config).stem.removesuffix(f'-{self.what}')}-{self.what}"

    def run(self) -> None:
        if self.dry_run:
            self._describe()
            return
        try:
            import accelerate  # noqa: F401
        except ModuleNotFoundError:
            raise ImportError("training needs accelerate; install it with: pip install 'adaptok[train]'") from None
        from adaptok.training.stages import open_stage_data
        from adaptok.training.trainer import Trainer

        if self.resume == "never" and (self.folder / "checkpoints").exists():
            raise ValueError(f"{self.folder} holds a run; choose another --out, or go on with --resume auto")
        with progress("opening files", None, "files", self.quiet or not sys.stderr.isatty()) as advance:
            data = open_stage_data(self.training, advance)
        run = Trainer(self.training, data, self.folder, None if self.quiet else report)
        run.train()
        if self.json and run.accelerator.is_main_process:
            document = {"out": str(self.folder), "model": str(self.folder / "model"), "steps": run.step}
            print(json.dumps({**document, "broken": run.broken}))

    def _describe(self) -> None:
        from adaptok.training.estimate import describe

        document = describe(self.training)
        if self.json:
            print(json.dumps(document))
            return
        for name, value in document.items():
            print(f"{name}: {json.dumps(value)}" if not isinstance(value, str) else f"{name}: {value}")


@dataclass(kw_only=True)
class TrainOnClips(Train):
    __doc__ = Train.__doc__
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")]
    """The configuration."""


@dataclass(kw_only=True)
class TrainOnTokens(Train):
    __doc__ = Train.__doc__
    training: Annotated[GeneratorTrainingConfig, tyro.conf.arg(name="")]
    """The configuration."""


def parse(arguments: Sequence[str]) -> Train:
    """The command that the arguments after `train` ask for: the configuration they name, and fields that override it.

    Raises:
        ValueError: a value is not allowed, or the configuration not valid.
        SystemExit: help was asked for, or the arguments cannot be understood; told on stderr.
    """
    stage: Any = next((argument for argument in arguments if argument in get_args(Stage)), "tokenizer")
    name = _flag(arguments, "--config")
    training: Any = load_config("tiny" if name is None else name, stage)
    kind = _flag(arguments, "--discriminator.kind")
    if kind is not None and isinstance(training, TrainingConfig) and kind != training.discriminator.kind:
        training = override(training, {"discriminator.kind": kind})  # so that its fields are flags
    command: type[Train] = TrainOnTokens if stage == "generator" else TrainOnClips
    try:
        return tyro.cli(
            command,
            prog="adaptok train",
            args=list(arguments),
            default=command(what=tyro.MISSING, training=training),
            config=(tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff),
        )
    except ValidationError as error:
        raise ValueError("; ".join(explain(type(training), item) for item in error.errors())) from None


def _flag(arguments: Sequence[str], name: str) -> str | None:
    """The last value that is given for a flag."""
    value = None
    for place, argument in enumerate(arguments):
        if argument == name and place + 1 < len(arguments):
            value = arguments[place + 1]
        elif argument.startswith(f"{name}="):
            value = argument.removeprefix(f"{name}=")
    return value


def report(record: object) -> None:
    """Print a record of metrics on stderr."""
    print(record, file=sys.stderr, flush=True)
