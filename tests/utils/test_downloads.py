"""Downloads from a local server: resumption, checksums, and servers without ranges."""

from __future__ import annotations

import hashlib
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from adaptok.utils.downloads import ChecksumError, download, partial_path

CONTENT = bytes(range(256)) * 64
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content`. It ends the connection after `limit` bytes, and ignores ranges unless `ranges` is true."""

    content, limit, ranges = CONTENT, len(CONTENT), True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requested: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/weights.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.server.requested.append(wanted)
        body, status = self.server.content, 200
        if wanted and self.server.ranges:
            body, status = body[int(wanted.removeprefix("bytes=").removesuffix("-")) :], 206
        self.send_response(status if body else 416)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.limit])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_interrupted_download_resumes(server, tmp_path, ranges):
    target, seen = tmp_path / "cache" / "weights.bin", []
    server.ranges, server.limit = ranges, 5000
    with pytest.raises(HTTPException, match="5000 of 16384 bytes"):
        download(server.url, target, SHA256)
    assert partial_path(target).read_bytes() == CONTENT[:5000]
    server.limit = len(CONTENT)
    download(server.url, target, SHA256, lambda done, total: seen.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert server.requested == [None, "bytes=5000-"]
    assert (seen[0], seen[-1]) == ((5000 if ranges else 0, 16384), (16384, 16384))
    download(server.url, target, SHA256)  # nothing to do
    assert len(server.requested) == 2
    assert list(target.parent.iterdir()) == [target]


def test_checksums(server, tmp_path):
    target = tmp_path / "weights.bin"
    server.content = CONTENT[::-1]
    with pytest.raises(ChecksumError, match="SHA-256"):
        download(server.url, target, SHA256)
    assert not list(tmp_path.iterdir())
    server.content = CONTENT
    partial_path(target).write_bytes(b"part of another file")
    download(server.url, target, SHA256)
    assert target.read_bytes() == CONTENT
    assert server.requested == [None, "bytes=20-", None]
    partial_path(tmp_path / "complete").write_bytes(CONTENT)  # a process ended before it was renamed
    download(server.url, tmp_path / "complete", SHA256)
    assert (tmp_path / "complete").read_bytes() == CONTENT
