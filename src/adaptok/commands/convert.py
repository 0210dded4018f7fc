"""`adaptok convert SRC DST`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from adaptok.checkpoints import CONFIG_FILE, DTYPES, read_folder, resolve, write_folder


@dataclass(kw_only=True)
class Convert:
    """Write a model folder of our layout from one of ours or of the official layout."""

    src: Positional[str]
    """Model folder or hub id."""
    dst: Positional[Path]
    """Folder to write."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the stored weights; less than float32 makes another model of it, with another hash."""
    json: bool = False
    """Print one JSON object on stdout."""
    force: bool = False
    """Overwrite a model that is there."""
    quiet: bool = False
    """No messages but errors."""

    def run(self) -> None:
        if (self.dst / CONFIG_FILE).exists() and not self.force:
            raise ValueError(f"{self.dst}: holds a model already; choose another folder, or overwrite it with --force")
        checkpoint = read_folder(resolve(self.src))
        model = checkpoint.build()
        write_folder(model, self.dst, DTYPES[self.dtype])
        parameters = model.parameter_counts()
        if self.json:
            print(json.dumps({"out": str(self.dst), "layout": checkpoint.layout, "parameters": parameters}))
        elif not self.quiet:
            print(f"{self.dst}: {sum(parameters.values()):,} parameters from the {checkpoint.layout} layout")
