"""`adaptok convert SRC DST`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from adaptok.checkpoints.hub import resolve
from adaptok.checkpoints.model_folder import (
    holds_generator,
    read_folder,
    read_generator,
    write_folder,
    write_official_generator,
)
from adaptok.cli.common import ModelOutput
from adaptok.utils.devices import DTYPES


@dataclass(kw_only=True)
class Convert(ModelOutput):
    """Write a model folder, of a tokenizer or a generator, from one of ours or of the official layout."""

    src: Positional[str]
    """Model folder or hub id."""
    dst: Positional[Path]
    """Folder to write."""
    layout: Literal["adaptok", "official"] = "adaptok"
    """Of the folder to write; the official one for generators only."""

    def run(self) -> None:
        self.check(self.dst)
        source, dtype = resolve(self.src), DTYPES[self.dtype]
        if holds_generator(source):
            generator = read_generator(source)
            write = write_official_generator if self.layout == "official" else write_folder
            write(generator, self.dst, dtype)
            parameters, kind = generator.parameter_counts(), "a generator"
        else:
            if self.layout == "official":
                raise ValueError(f"{self.src}: a tokenizer, which is only written in our layout; leave --layout out")
            checkpoint = read_folder(source)
            model = checkpoint.build()
            write_folder(model, self.dst, dtype)
            parameters, kind = model.parameter_counts(), f"the {checkpoint.layout} layout"
        if self.json:
            print(json.dumps({"out": str(self.dst), "source": kind, "parameters": parameters}))
        elif not self.quiet:
            print(f"{self.dst}: {sum(parameters.values()):,} parameters from {kind}")
