"""`adaptok export RUN DIR`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from adaptok.checkpoints.model_folder import write_folder
from adaptok.cli.common import ModelOutput
from adaptok.training.checkpointing import list_checkpoints, load_averaged_model
from adaptok.utils.devices import DTYPES


@dataclass(kw_only=True)
class Export(ModelOutput):
    """Write a model folder from the newest checkpoint of a training run, with its averaged weights."""

    src: Positional[Path]
    """Folder of the run."""
    dst: Positional[Path]
    """Folder to write."""

    def run(self) -> None:
        found = list_checkpoints(self.src)
        if not found:
            raise ValueError(f"{self.src}: no checkpoint in it, expected the folder of a run of 'adaptok train'")
        self.check(self.dst)
        model, step = load_averaged_model(found[-1])
        write_folder(model, self.dst, DTYPES[self.dtype])
        if self.json:
            print(json.dumps({"out": str(self.dst), "step": step, "parameters": model.parameter_counts()}))
        elif not self.quiet:
            print(f"{self.dst}: the model of step {step}")
