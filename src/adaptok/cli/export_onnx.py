"""`adaptok export-onnx MODEL OUT`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional

from adaptok.cli.options import MODEL_NAME, Messages, Switch, group, option
from adaptok.cli.output import one_output, output_folder, progress, show


@dataclass(kw_only=True)
class ExportOnnx:
    """Write the encoder, decoder and scorer of a model as ONNX files, to run it without PyTorch."""

    notes: ClassVar[str] = (
        "OUT receives encoder.onnx, decoder.onnx, scorer.onnx if the model has a scorer, and onnx.json, which describes"
        " them. All compute in float32. See docs/deployment.md."
    )

    src: Annotated[Positional[str | None], MODEL_NAME, option("[MODEL]")] = None
    """Model folder in either layout, or id of a model on the Hugging Face hub with its branch, tag or commit
    (owner/name@revision). The bundled model is the default."""
    dst: Annotated[Positional[Path | None], option("[OUT]")] = None
    """Folder to write. The default is the name of MODEL followed by -onnx, in the current folder."""
    output: Annotated[Path | None, option("OUT", "-o")] = None
    """The same as the argument OUT."""
    force: Switch = False
    """Overwrite an exported model in the folder."""
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        from adaptok.checkpoints.hub import BUNDLED_MODEL, folder_name
        from adaptok.codec.codec import AdapTok
        from adaptok.export.onnx import DESCRIPTION_FILE, check_packages, export_onnx

        out = one_output(self.dst, self.output, Path(f"{folder_name(self.src or BUNDLED_MODEL)}-onnx"))
        assert out is not None
        output_folder(out)
        if (out / DESCRIPTION_FILE).exists() and not self.force:
            raise ValueError(f"{out}: holds an exported model already; choose another, or overwrite it with --force")
        check_packages()
        codec = AdapTok.from_pretrained(self.src, device="cpu")
        count = 2 if codec.model.scorer is None else 3
        with progress(self.messages, "exporting", count, "networks") as advance:
            document = export_onnx(codec.model, codec.weights_hash, out, advance)
        names = ", ".join(document["networks"])
        show(
            self.messages,
            {"out": str(out), **document},
            f"{out}: {names} of {document['model']}, opset {document['opset']}",
        )
