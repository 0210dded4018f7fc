"""`adaptok convert SRC [DST]`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from adaptok.cli.options import ModelOutput, option
from adaptok.cli.output import model_output, show
from adaptok.config.choices import ModelLayout


@dataclass(kw_only=True)
class Convert(ModelOutput):
    """Convert a tokenizer or a generator between the layout of adaptok and the official one."""

    src: Annotated[Positional[str], option("SRC")]
    """Model folder in either layout, or id of a model on the Hugging Face hub (owner/name)."""
    dst: Annotated[Positional[Path | None], option("[DST]")] = None
    """Model folder to write. The default is the name of SRC followed by the layout, in the current folder."""
    layout: ModelLayout = "adaptok"
    """Layout to write. Only generators can be written in the official layout."""

    def run(self) -> None:
        from adaptok.checkpoints.hub import resolve
        from adaptok.checkpoints.model_folder import (
            holds_generator,
            read_folder,
            read_generator,
            write_folder,
            write_official_generator,
        )
        from adaptok.utils.devices import DTYPES

        out = model_output(self.dst, self.output, Path(f"{Path(self.src).name}-{self.layout}"), self.force)
        source, dtype = resolve(self.src), DTYPES[self.dtype]
        if holds_generator(source):
            generator = read_generator(source)
            write = write_official_generator if self.layout == "official" else write_folder
            write(generator, out, dtype)
            parameters, kind = generator.parameter_counts(), "a generator"
        else:
            if self.layout == "official":
                raise ValueError(
                    f"{self.src}: a tokenizer, which can only be written in the layout of adaptok; leave out --layout"
                )
            checkpoint = read_folder(source)
            model = checkpoint.build()
            write_folder(model, out, dtype)
            parameters, kind = model.parameter_counts(), f"the {checkpoint.layout} layout"
        document = {"out": str(out), "source": kind, "parameters": parameters}
        show(self.messages, document, f"{out}: {sum(parameters.values()):,} parameters from {kind}")
