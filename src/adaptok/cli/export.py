"""`adaptok export RUN [DST]`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from adaptok.cli.options import ModelOutput, option
from adaptok.cli.output import model_output, show, warn


@dataclass(kw_only=True)
class Export(ModelOutput):
    """Write a model folder from the latest checkpoint of a training run, with its averaged weights,
    and a model card (README.md)."""

    src: Annotated[Positional[Path], option("RUN")]
    """Folder of the run."""
    dst: Annotated[Positional[Path | None], option("[DST]")] = None
    """Model folder to write. The default is the name of the run followed by -model, in the current folder."""

    def run(self) -> None:
        from adaptok.checkpoints.model_folder import write_folder
        from adaptok.training.checkpoint_choice import choose_checkpoint
        from adaptok.training.checkpointing import load_averaged_model
        from adaptok.training.model_card import write_card_of_run
        from adaptok.utils.devices import DTYPES

        checkpoint, _, warning = choose_checkpoint(self.src)
        if checkpoint is None:
            raise ValueError(f"{self.src}: holds no checkpoint, expected the folder of a run of 'adaptok train'")
        warn(warning)
        out = model_output(self.dst, self.output, Path(f"{self.src.resolve().name}-model"), self.force)
        model, step = load_averaged_model(checkpoint)
        write_folder(model, out, DTYPES[self.dtype])
        write_card_of_run(out, model, self.src, step)
        document = {"out": str(out), "step": step, "parameters": model.parameter_counts()}
        show(self.messages, document, f"{out}: the model of step {step}")
