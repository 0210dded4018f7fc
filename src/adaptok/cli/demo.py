"""`adaptok demo [--port N]`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from adaptok.cli.options import MODEL_NAME, Device, Messages, Switch, group, option
from adaptok.cli.output import say, show, warn


@dataclass(kw_only=True)
class DemoModels(Device):
    """Which models to use, and where to compute."""

    model: Annotated[str | None, MODEL_NAME, option("FOLDER|HUB_ID")] = None
    """Model folder, or id of a model on the Hugging Face hub with its branch, tag or commit (owner/name@revision). The
    bundled model is the default."""
    generator: Annotated[str | None, MODEL_NAME, option("FOLDER|HUB_ID")] = None
    """Generator of the tab Generate: a folder, or an id on the hub. The bundled generator is the default."""


@dataclass(kw_only=True)
class Demo:
    """Open a page in the browser to reconstruct, compare and generate clips."""

    notes: ClassVar[str] = "The demo needs the extra 'demo', and no network. Stop it with Ctrl-C."

    port: Annotated[int, option("N")] = 7860
    """TCP port of the server. The default is 7860; 0 takes any free port."""
    host: Annotated[str, option("ADDRESS")] = "127.0.0.1"
    """Network interface of the server. The default, 127.0.0.1, only accepts connections from this machine; 0.0.0.0
    accepts them from the whole network."""
    share: Switch = False
    """Also open a temporary public address through gradio's servers. Everybody who knows the address can use the
    demo. This needs a network."""
    max_seconds: Annotated[float, option("SECONDS")] = 10.0
    """Part of a clip that is used, from its beginning. The default is 10 seconds, so that results take less than a
    minute on a laptop."""
    max_megabytes: Annotated[float, option("N")] = 100.0
    """Largest size of an uploaded clip in megabytes. The default is 100."""
    models: Annotated[DemoModels, group("model")] = field(default_factory=DemoModels)
    messages: Annotated[Messages, group("message")] = field(default_factory=Messages)

    def run(self) -> None:
        import threading

        from adaptok.demo.models import load_models
        from adaptok.demo.server import Address, check_installed, serve
        from adaptok.demo.uploads import UploadLimits

        check_installed()
        limits = UploadLimits(self.max_seconds, self.max_megabytes)
        address = Address(self.host, self.port)
        address.free_port()  # an error is shown before the models are loaded
        say(self.messages, "loading the models")
        chosen = self.models
        models = load_models(chosen.model, chosen.generator, device=chosen.device, dtype=chosen.dtype)
        if models.note is not None:
            warn(f"the tab Generate is left out: {models.note}")
        with serve(models, limits, address, share=self.share) as url:
            show(self.messages, {"url": url}, f"Open {url} in a browser. Ctrl-C stops the demo.")
            try:
                while True:
                    threading.Event().wait(3600)
            except KeyboardInterrupt:
                say(self.messages, "stopped")
