"""`adaptok train tokenizer`, `scorer` and `generator`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Suppress, UseAppendAction, arg, subcommand

from adaptok.cli.compatibility import RENAMED_FLAGS
from adaptok.cli.errors import UsageError, nearest
from adaptok.cli.options import Messages, Switch, group, option
from adaptok.cli.output import progress, refuse_streams, say
from adaptok.config.choices import Stage

if TYPE_CHECKING:
    from adaptok.config.training import AnyConfig


@dataclass(kw_only=True)
class TrainingRun:
    """Options of all stages."""

    stage: ClassVar[Stage]

    config: Annotated[str, option("PRESET|FILE")] = "tiny"
    """Preset (tiny, small or base) or YAML file to start from. The default, tiny, trains on a CPU."""
    set: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUE", help_behavior_hint="")] = ()
    """Replace a field of the configuration, for example optimizer.lr=1e-4. The value is read as YAML. May be repeated.
    --KEY VALUE does the same. All keys are listed below."""
    output: Annotated[Path | None, option("FOLDER", "-o")] = None
    """Folder of the run: configuration, metrics, samples, checkpoints, and the trained model. A run in the folder
    resumes from its last checkpoint. The default is runs/CONFIG-STAGE."""
    resume: Literal["auto", "never"] = "auto"
    """auto resumes the run in the folder, if there is one. never refuses a folder that holds a run."""
    device: Annotated[str, option("NAME")] = "auto"
    """Device to train on: cpu, cuda or mps. The default, auto, takes the GPUs if there are any. Processes are started
    by torchrun or 'accelerate launch -m adaptok'."""
    print_config: Switch = False
    """Print the resolved configuration as YAML, which --config accepts, and exit."""
    dry_run: Switch = False
    """Check the configuration, print the size of the model and the memory and work of a step, and exit. Needs no
    data."""
    overrides: Suppress[tuple[tuple[str, Any], ...]] = ()
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.output or Path("runs") / f"{Path(self.config).stem.removesuffix(f'-{self.stage}')}-{self.stage}"

    def take_unknown(self, words: Sequence[str], flags: Sequence[str]) -> None:
        """Take flags that are no options of the command as fields of the configuration.

        Args:
            words: arguments that tyro does not know, in order: `--KEY=VALUE`, `--KEY VALUE …`, `--KEY` and `--no-KEY`.
            flags: the options of the command.

        Raises:
            UsageError: an argument is no flag, or resembles an option of the command.
        """
        from adaptok.config.training import config_fields

        keys = {field.key.partition(".")[0] for field in config_fields(self.stage)}
        overrides: list[tuple[str, list[str]]] = []
        for word in words:
            if word.startswith("--"):
                name, equals, value = word.partition("=")
                if name in RENAMED_FLAGS and name != "--batch":
                    raise UsageError(f"unknown flag {name}; did you mean {RENAMED_FLAGS[name]}?")
                key = name[2:].replace("-", "_")
                close = nearest(name, flags, cutoff=0.8)
                if close is not None and key.partition(".")[0] not in keys:
                    raise UsageError(f"unknown flag {name}; did you mean {close}?")
                overrides.append((key, [value] if equals else []))
            elif overrides:
                overrides[-1][1].append(word)
            else:
                raise UsageError(f"unexpected argument {word!r}; fields of the configuration are set by --KEY VALUE")
        self.overrides = tuple(_to_override(key, values) for key, values in overrides)

    def load_config(self) -> AnyConfig:
        """The configuration with all replaced fields."""
        from adaptok.config.training import load_training_config

        values = dict(self.overrides)
        for assignment in self.set:
            key, equals, value = assignment.partition("=")
            if not equals:
                raise UsageError(f"--set {assignment}: expected KEY=VALUE")
            values[key.strip()] = value.strip()
        return load_training_config(self.config, self.stage, values)

    def run(self) -> None:
        config = self.load_config()
        if self.print_config:
            from adaptok.config.training import dump_config

            print(dump_config(config), end="")
        elif self.dry_run:
            self._describe(config)
        else:
            self._train(config)

    def _describe(self, config: AnyConfig) -> None:
        from adaptok.training.estimate import describe

        document = describe(config)
        if self.messages.json:
            print(json.dumps(document))
            return
        for name, value in document.items():
            print(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")

    def _train(self, config: AnyConfig) -> None:
        import os

        from adaptok.utils.extras import require

        require("accelerate", extra="train", purpose="training")
        refuse_streams(self.folder)
        if self.resume == "never" and (self.folder / "checkpoints").exists():
            raise ValueError(f"{self.folder} holds a run; choose another --output, or resume it with --resume auto")
        if self.device == "cpu":
            os.environ["ACCELERATE_USE_CPU"] = "true"
        elif self.device != "auto":
            self._check_device()
        from adaptok.training.stages import open_stage_data
        from adaptok.training.trainer import Trainer

        quiet = Messages(quiet=self.messages.quiet or not sys.stderr.isatty())
        with progress(quiet, "opening files", None, "files") as advance:
            data = open_stage_data(config, advance)
        trainer = Trainer(config, data, self.folder, lambda line: say(self.messages, str(line)))
        trainer.train()
        if self.messages.json and trainer.accelerator.is_main_process:
            document = {"out": str(self.folder), "model": str(self.folder / "model"), "steps": trainer.step}
            print(json.dumps({**document, "broken": trainer.broken}))

    def _check_device(self) -> None:
        """Raise ValueError unless accelerate will train on the requested device."""
        from adaptok.utils.devices import pick_device

        requested, automatic = pick_device(self.device), pick_device("auto")
        if requested.type != automatic.type or requested.index is not None:
            raise ValueError(
                f"--device {self.device}, expected auto, cpu or {automatic.type}; to choose among GPUs, set"
                " CUDA_VISIBLE_DEVICES"
            )

    @classmethod
    def epilog(cls) -> str:
        """The fields of the configuration, for `--help`."""
        from adaptok.cli.config_help import describe_fields

        return describe_fields(cls.stage)


def _to_override(key: str, values: list[str]) -> tuple[str, Any]:
    """A field and its new value. Without a value, `--KEY` switches a field on and `--no-KEY` switches it off."""
    if not values:
        component, dot, name = key.rpartition(".")
        if name.startswith("no_"):
            return f"{component}{dot}{name.removeprefix('no_')}", "false"
        return key, "true"
    return key, values[0] if len(values) == 1 else values


@dataclass(kw_only=True)
class TrainTokenizer(TrainingRun):
    """Train a tokenizer on videos and photographs: encoder, quantizer and decoder.

    Fields of the configuration are set by --KEY VALUE, for example:
    adaptok train tokenizer --config small --data.train my/videos --max-steps 5000
    """

    stage: ClassVar[Stage] = "tokenizer"


@dataclass(kw_only=True)
class TrainScorer(TrainingRun):
    """Train a scorer for an existing tokenizer: it predicts the distortion of a block at every length.

    Fields of the configuration are set by --KEY VALUE, for example:
    adaptok train scorer --initial runs/tiny-tokenizer/model --data.train my/videos
    """

    stage: ClassVar[Stage] = "scorer"


@dataclass(kw_only=True)
class TrainGenerator(TrainingRun):
    """Train a generator of token ids on token datasets that 'adaptok tokenize' wrote.

    Fields of the configuration are set by --KEY VALUE, for example:
    adaptok train generator --data.train my-tokens --data.held-out 0.05
    """

    stage: ClassVar[Stage] = "generator"


@dataclass(kw_only=True)
class Train:
    """Train a tokenizer, a scorer or a generator."""

    notes: ClassVar[str] = (
        "Interrupted runs resume from the last checkpoint. Several processes are started by torchrun or "
        "'accelerate launch -m adaptok'."
    )

    command: (
        Annotated[TrainTokenizer, subcommand("tokenizer")]
        | Annotated[TrainScorer, subcommand("scorer")]
        | Annotated[TrainGenerator, subcommand("generator")]
    )
