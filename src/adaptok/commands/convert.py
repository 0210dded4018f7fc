"""`adaptok convert SRC DST`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from adaptok.checkpoints import DTYPES, read_folder, resolve, write_folder
from adaptok.commands.common import ModelOutput


@dataclass(kw_only=True)
class Convert(ModelOutput):
    """Write a model folder of our layout from one of ours or of the official layout."""

    src: Positional[str]
    """Model folder or hub id."""
    dst: Positional[Path]
    """Folder to write."""

    def run(self) -> None:
        self.check(self.dst)
        checkpoint = read_folder(resolve(self.src))
        model = checkpoint.build()
        write_folder(model, self.dst, DTYPES[self.dtype])
        parameters = model.parameter_counts()
        if self.json:
            print(json.dumps({"out": str(self.dst), "layout": checkpoint.layout, "parameters": parameters}))
        elif not self.quiet:
            print(f"{self.dst}: {sum(parameters.values()):,} parameters from the {checkpoint.layout} layout")
