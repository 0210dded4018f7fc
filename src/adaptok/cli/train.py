"""`adaptok train tokenizer`, `scorer` and `generator`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from tyro.conf import Suppress, UseAppendAction, arg, subcommand

from adaptok.cli.compatibility import RENAMED_FLAGS
from adaptok.cli.errors import UsageError, nearest
from adaptok.cli.options import Messages, Switch, group, option
from adaptok.cli.output import output_folder, progress, refuse_streams, say, show, warn
from adaptok.cli.training_text import plan_text, summary_text
from adaptok.config.choices import Stage

if TYPE_CHECKING:
    from adaptok.config.training import AnyConfig
    from adaptok.training.trainer import Trainer


@dataclass(kw_only=True)
class TrainingRun:
    """Options of all stages."""

    stage: ClassVar[Stage]
    ignores_load: ClassVar[bool] = True

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
    threads: Annotated[int | None, option("N")] = None
    """Number of CPU threads of each process. The default is that of OMP_NUM_THREADS, which torchrun sets, or else the
    number of CPUs that this process may use. It does not depend on the load of the machine, because rounding depends on
    the number of threads, and a run that resumes must give the same result."""
    device: Annotated[str, option("NAME")] = "auto"
    """Device to train on: cpu, cuda or mps. The default, auto, takes the GPUs if there are any. Processes are started
    by torchrun or 'accelerate launch -m adaptok'."""
    print_config: Switch = False
    """Print the resolved configuration as YAML, which --config accepts, and exit."""
    dry_run: Switch = False
    """Check the configuration, the data, weights and models that it names, and the folder of the run; print the size
    of the model and the memory and work of a step, and exit. Inputs that are not given yet are listed."""
    processes: Annotated[int | None, option("N")] = None
    """Number of training processes that --dry-run plans for. The default is the number that torchrun or accelerate has
    started."""
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
        config = load_training_config(self.config, self.stage, values)
        return self._adopt_initial(config, values) if config.initial is not None else config

    def _adopt_initial(self, config: AnyConfig, values: Mapping[str, Any]) -> AnyConfig:
        """Check the initial model, if the command line names it, and give a preset its architecture."""
        from adaptok.checkpoints.hub import resolve
        from adaptok.config.overrides import resolve_key
        from adaptok.config.training import STAGES
        from adaptok.training.initialization.adoption import adopt_initial

        assert config.initial is not None
        given = {resolve_key(STAGES[self.stage], key) for key in values}
        try:
            resolve(config.initial)
        except FileNotFoundError:
            if "initial" in given and not self.print_config:
                raise
            return config
        is_preset = Path(self.config).suffix not in (".yaml", ".yml", ".json")
        return adopt_initial(config, given) if is_preset else config

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
        from adaptok.training.optim import RunLength
        from adaptok.training.processes import is_main_process, started_processes
        from adaptok.training.resuming import resumed_step

        processes = self.processes or started_processes()
        document = describe(config, processes)
        self._check_output()
        length = None if document["steps"] is None else RunLength(document["steps"], document["warmup_steps"])
        document["resumes_after"] = resumed_step(self.folder, config, length, processes)
        if is_main_process():
            show(self.messages, document, plan_text(document, self.folder))

    def _check_output(self) -> None:
        refuse_streams(self.folder)
        if self.resume == "never" and (self.folder / "checkpoints").exists():
            raise ValueError(f"{self.folder} holds a run; choose another --output, or resume it with --resume auto")
        existing = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if not os.access(existing, os.W_OK):
            raise PermissionError(f"{self.folder}: {existing} cannot be written; choose another --output")

    def _train(self, config: AnyConfig) -> None:
        from adaptok.utils.extras import require

        require("accelerate", extra="train", purpose="training")
        main_messages = self.messages if os.environ.get("RANK", "0") == "0" else Messages(quiet=True)
        say(main_messages, f"Preparing the {self.stage} run in {self.folder} ...")
        self._check_output()
        if os.environ.get("RANK", "0") == "0":  # the main process locks the folder for all
            output_folder(self.folder)
        if self.device == "cpu":
            os.environ["ACCELERATE_USE_CPU"] = "true"
        elif self.device != "auto":
            self._check_device()
        from adaptok.training.estimate import missing_inputs
        from adaptok.training.interruption import TrainingInterrupted
        from adaptok.training.stages import open_stage_data
        from adaptok.training.trainer import Trainer

        if missing := missing_inputs(config):
            raise ValueError(missing[0])
        quiet = Messages(quiet=main_messages.quiet or not sys.stderr.isatty())
        with progress(quiet, "opening files", None, "files") as advance:
            data = open_stage_data(config, advance)
        trainer = Trainer(config, data, self.folder, lambda record: say(main_messages, str(record)))
        warn(trainer.warning)
        try:
            self._run(trainer, main_messages)
        except TrainingInterrupted:
            if not trainer.accelerator.is_main_process:
                from adaptok.cli.main import INTERRUPTED

                sys.exit(INTERRUPTED)  # the main process prints the message
            raise
        if self.messages.json and trainer.accelerator.is_main_process:
            document = {"out": str(self.folder), "model": str(self.folder / "model"), "steps": trainer.step}
            print(json.dumps({**document, "broken": trainer.broken}))

    def _run(self, trainer: Trainer, messages: Messages) -> None:
        from adaptok.training.reporting import last_metrics

        steps = trainer.length.steps
        if trainer.finished:
            model = self.folder / "model"
            say(messages, f"The run is finished ({trainer.step} of {steps} steps); its model is in {model}.")
            say(messages, f"To train longer, give more steps, such as --max-steps {2 * steps}.")
            return
        how = f"Resuming after step {trainer.step}" if trainer.step else "Starting"
        processes, device = trainer.accelerator.num_processes, trainer.accelerator.device.type
        where = f"{processes} process{'es' * (processes > 1)} ({device})"
        say(messages, f"{how}: {steps} steps of {trainer.batch.batch_size} clips on {where}")
        trainer.train()
        say(messages, summary_text(self.stage, self.folder, steps, last_metrics(self.folder / "metrics.jsonl")))

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
    adaptok train scorer --initial adaptok-tiny --data.train my/videos
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
