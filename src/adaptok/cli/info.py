"""`adaptok info [NAME]`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional

from adaptok.cli.options import MODEL_NAME, Messages, group, option
from adaptok.cli.output import show


@dataclass(kw_only=True)
class Info:
    """Describe a video, token file, model, training run, token dataset or report."""

    name: Annotated[Positional[str | None], MODEL_NAME, option("[NAME]")] = None
    """File, folder, or id of a model on the Hugging Face hub with its branch, tag or commit (owner/name@revision). The
    bundled model is the default."""
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.cli.describe import describe, shorten

        document = describe(self.name)
        show(self.messages, document, "\n".join(f"{name}: {shorten(value)}" for name, value in document.items()))
