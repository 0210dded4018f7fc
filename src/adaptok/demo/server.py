"""The server of the demo, which works without a network."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptok.demo.sessions import Sessions
from adaptok.demo.uploads import UploadLimits
from adaptok.utils.extras import require

if TYPE_CHECKING:
    from adaptok.demo.models import Models

MAX_WAITING = 16
"""Jobs that may wait. Further ones are refused with a message."""
_ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
_CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:;"
    " worker-src 'self' blob:; object-src 'none'"
)
"""Content-Security-Policy header: the browser loads nothing from other servers."""
_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace"]

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


@dataclass(frozen=True)
class Address:
    """Where the demo is served.

    Args:
        host: Address of the network interface.
        port: TCP port; 0 lets the operating system choose a free one.

    Raises:
        ValueError: The port is out of range.
    """

    host: str = "127.0.0.1"
    port: int = 7860

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port}, expected 0 to 65535")

    def free_port(self) -> int:
        """Check that the port is free, and return it, or a free one for port 0.

        Raises:
            ValueError: Another program uses the port, or there is no such interface.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name != "nt":  # there, the option would allow two servers on one port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise ValueError(f"{self.host}:{self.port}: {reason}; choose another --port or --host") from None
            return int(probe.getsockname()[1])


class SameOrigin:
    """ASGI middleware that adds headers which keep the browser from loading anything from other servers."""

    def __init__(self, app: Callable[[_Message, _Receive, _Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        async def send_with_headers(message: _Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"content-security-policy", _CONTENT_POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        await self.app(scope, receive, send_with_headers if scope["type"] == "http" else send)


@contextmanager
def serve(models: Models, limits: UploadLimits, address: Address, *, share: bool = False) -> Iterator[str]:
    """Serve the demo in background threads until the body ends, and remove all temporary files then.

    Args:
        models: Models that compute.
        limits: Limits of uploaded clips.
        address: Where to serve.
        share: Also open a public address through the tunnel of gradio, which needs a network.

    Yields:
        The address to open in a browser; the public one if there is one.

    Raises:
        ImportError: gradio is not installed.
        ValueError: The port is not free.
    """
    check_installed()
    port = address.free_port()
    root = Path(tempfile.mkdtemp(prefix="adaptok-demo-")).resolve()
    sessions = Sessions(root)
    environment = {**_ENVIRONMENT, "GRADIO_TEMP_DIR": str(root / "uploads")}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)  # before gradio is imported
    blocks = None
    try:
        from adaptok.demo.app import build

        blocks = build(models, limits, sessions)
        url, public = _launch(blocks, limits, address.host, port, root, share)
        yield public or url
    finally:
        try:
            sessions.close_all()
            if blocks is not None:
                blocks.close(verbose=False)
        finally:  # also after a second Ctrl-C
            shutil.rmtree(root, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def check_installed() -> None:
    """Raise an ImportError with advice if gradio is not installed."""
    require("gradio", extra="demo", purpose="the demo")


def _launch(blocks: Any, limits: UploadLimits, host: str, port: int, root: Path, share: bool) -> tuple[str, str | None]:
    """Start the server; return its local and its public address."""
    import gradio as gr
    from starlette.middleware import Middleware

    from adaptok.demo.page import static

    theme = gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=_FONTS, font_mono=_MONO)
    theme.set(  # the defaults are too faint to read
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
    )
    blocks.queue(max_size=MAX_WAITING, default_concurrency_limit=4, api_open=False)
    _, url, public = blocks.launch(
        server_name=host,
        server_port=port,
        share=share,
        prevent_thread_lock=True,
        quiet=True,
        inbrowser=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        footer_links=[],
        allowed_paths=[str(root)],
        max_file_size=int(limits.megabytes * 1e6),
        app_kwargs={"middleware": [Middleware(SameOrigin)]},
        theme=theme,
        css=static("style.css"),
        head="".join(f"<script>{static(name)}</script>" for name in ("player.js", "uploads.js")),
    )
    return url, public
