"""A web server in the process of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FolderHandler(SimpleHTTPRequestHandler):
    """Serves the files of a folder, and redirects /moved-to/SCHEME to an address of that scheme."""

    def do_GET(self) -> None:
        if self.path.startswith("/moved-to/"):
            scheme = self.path.rpartition("/")[2]
            host = self.headers["Host"] if scheme == "http" else ""
            self.send_response(302)
            self.send_header("Location", f"{scheme}://{host}{'' if host else self.directory}/a.mp4")
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve the files of a folder, and yield the address of the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(FolderHandler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
