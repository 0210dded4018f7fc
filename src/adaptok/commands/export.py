"""`adaptok export RUN DIR`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from adaptok.checkpoints import CONFIG_FILE, DTYPES, write_folder
from adaptok.training.checkpoint import averaged, folders


@dataclass(kw_only=True)
class Export:
    """Write a model folder from the newest checkpoint of a training run, with its averaged weights."""

    src: Positional[Path]
    """Folder of the run."""
    dst: Positional[Path]
    """Folder to write."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the stored weights."""
    json: bool = False
    """Print one JSON object on stdout."""
    force: bool = False
    """Overwrite a model that is there."""
    quiet: bool = False
    """No messages but errors."""

    def run(self) -> None:
        found = folders(self.src)
        if not found:
            raise ValueError(f"{self.src}: no checkpoint in it, expected the folder of a run of 'adaptok train'")
        if (self.dst / CONFIG_FILE).exists() and not self.force:
            raise ValueError(f"{self.dst}: holds a model already; choose another folder, or overwrite it with --force")
        model, step = averaged(found[-1])
        write_folder(model, self.dst, DTYPES[self.dtype])
        if self.json:
            print(json.dumps({"out": str(self.dst), "step": step, "parameters": model.parameter_counts()}))
        elif not self.quiet:
            print(f"{self.dst}: the model of step {step}")
