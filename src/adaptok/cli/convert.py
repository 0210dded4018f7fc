"""`adaptok convert SRC [DST]`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from adaptok.cli.options import MODEL_NAME, ModelOutput, option
from adaptok.cli.output import input_path, model_output, show
from adaptok.config.choices import ModelLayout


@dataclass(kw_only=True)
class Convert(ModelOutput):
    """Convert a tokenizer or a generator between the layout of adaptok and the official one."""

    notes: ClassVar[str] = (
        "A checkpoint of the official training is read without running code from it. Options of the official "
        "program that adaptok does not implement are refused by name, and so are options of adaptok that the official "
        "program lacks."
    )

    src: Annotated[Positional[str], MODEL_NAME, option("SRC")]
    """Model folder in either layout, id of a model on the Hugging Face hub with its branch, tag or commit
    (owner/name@revision), or checkpoint of the official training (.pth)."""
    dst: Annotated[Positional[Path | None], option("[DST]")] = None
    """Model folder to write. The default is the name of SRC followed by the layout, in the current folder."""
    to: ModelLayout = "adaptok"
    """Layout to write: that of adaptok, or the official one, which the official program loads."""

    def run(self) -> None:
        from adaptok.checkpoints.hub import folder_name, resolve
        from adaptok.checkpoints.model_folder import (
            holds_generator,
            read_folder,
            read_generator,
            write_folder,
            write_official_folder,
        )
        from adaptok.checkpoints.official_training import SUFFIXES
        from adaptok.models.generator import GeneratorModel
        from adaptok.models.model import Model
        from adaptok.utils.devices import DTYPES

        path = Path(self.src)
        is_checkpoint = path.suffix in SUFFIXES
        name = path.stem if is_checkpoint else folder_name(self.src)
        out = model_output(self.dst, self.output, Path(f"{name}-{self.to}"), self.force)
        source = input_path(path) if is_checkpoint else resolve(self.src)
        model: Model | GeneratorModel
        if holds_generator(source):
            model, kind = read_generator(source), "a generator"
        else:
            checkpoint = read_folder(source)
            model, kind = checkpoint.build(), f"the {checkpoint.layout} layout"
        write = write_official_folder if self.to == "official" else write_folder
        write(model, out, DTYPES[self.dtype])
        parameters = model.parameter_counts()
        document = {"out": str(out), "source": kind, "parameters": parameters}
        show(self.messages, document, f"{out}: {sum(parameters.values()):,} parameters from {kind}")
