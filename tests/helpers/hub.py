"""A stand-in for the HTTP interface of the Hugging Face hub: repositories of models, in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_of_the_tests"
LARGE_FILES = (".safetensors", ".png")


@dataclass(frozen=True)
class File:
    data: bytes
    large: bool

    @property
    def oid(self) -> str:
        """What the hub names a file by: its SHA-256 if it is large, otherwise the hash of git."""
        return sha256(self.data) if self.large else hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass
class Repository:
    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit_of(self, revision: str) -> str | None:
        """The commit of a branch, or that of a hash."""
        oid = self.branches.get(revision, revision)
        return oid if oid in self.commits else None

    def commit(self, branch: str, files: dict[str, File], message: str) -> str:
        files = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        oid = hashlib.sha1(f"{len(self.commits)}{message}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = files, oid
        self.messages.append(message)
        return oid


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    token: str | None


class Hub:
    """Repositories, stored large files by SHA-256, and the requests that were received.

    Large files are stored under another host name, as by the real hub.
    """

    def __init__(self) -> None:
        self.url = self.storage = ""
        self.repositories: dict[str, Repository] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.failing = False

    def text(self, repo_id: str, name: str, branch: str = "main") -> str:
        repository = self.repositories[repo_id]
        return repository.commits[repository.branches[branch]][name].data.decode()

    def answer(self, request: Request, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """The status, headers and content of the answer to a request."""
        self.requests.append(request)
        if self.failing:
            return 503, {}, b"{}"
        method = "GET" if request.method == "HEAD" else request.method
        for verb, pattern, handler in ROUTES:
            match = re.fullmatch(pattern, unquote(urlsplit(request.path).path))
            if verb == method and match:
                return handler(self, request, body, **match.groupdict())
        return error(404, "EntryNotFound")

    def find(self, repo: str, request: Request) -> Repository | None:
        repository = self.repositories.get(repo)
        hidden = repository is not None and repository.private and request.token != TOKEN
        return None if hidden else repository


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def reply(document: object, status: int = 200, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json", **headers}, json.dumps(document).encode()


def error(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    return reply({"error": code}, status, **{"X-Error-Code": code, "X-Error-Message": code})


def create(hub, request, body):
    values = json.loads(body)
    repo = f"{values['organization']}/{values['name']}"
    if request.token != TOKEN:
        return error(401, "Unauthorized")
    if repo in hub.repositories:
        return reply({"error": "exists", "url": f"{hub.url}/{repo}"}, 409)
    hub.repositories[repo] = Repository(values.get("visibility") == "private" or bool(values.get("private")))
    hub.repositories[repo].commit("main", {".gitattributes": File(b"", False)}, "initial commit")
    return reply({"url": f"{hub.url}/{repo}"})


def create_branch(hub, request, body, repo, branch):
    repository = hub.repositories[repo]
    if branch in repository.branches:
        return reply({"error": "exists"}, 409)
    repository.branches[branch] = repository.branches["main"]
    return reply({})


def validate_yaml(hub, request, body):
    """Refuse metadata that is no YAML mapping, as the hub does."""
    match = re.match(r"---\n(.*?)\n---\n", json.loads(body)["content"], re.DOTALL)
    valid = match is not None and isinstance(yaml.safe_load(match[1]), dict)
    return reply({"warnings": [], "errors": [] if valid else [{"message": "no metadata"}]}, 200 if valid else 400)


def preupload(hub, request, body, repo, revision):
    modes = [(each["path"], each["path"].endswith(LARGE_FILES)) for each in json.loads(body)["files"]]
    return reply(
        {
            "files": [
                {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
                for path, large in modes
            ]
        }
    )


def lfs_batch(hub, request, body, repo):
    objects = []
    for each in json.loads(body)["objects"]:
        href = {"upload": {"href": f"{hub.storage}/lfs/{each['oid']}"}}
        objects.append({**each, **({} if each["oid"] in hub.large else {"actions": href})})
    return reply({"transfer": "basic", "objects": objects})


def lfs_upload(hub, request, body, oid):
    if sha256(body) != oid:
        return error(400, "BadRequest")
    hub.large[oid] = body
    return reply({})


def commit(hub, request, body, repo, revision):
    repository = hub.find(repo, request)
    if request.token != TOKEN or repository is None:
        return error(401, "Unauthorized")
    files, message = {}, ""
    for line in map(json.loads, body.splitlines()):
        value = line["value"]
        if line["key"] == "header":
            message = value["summary"]
        elif line["key"] == "lfsFile":
            files[value["path"]] = File(hub.large[value["oid"]], True)
        else:
            files[value["path"]] = File(base64.b64decode(value["content"]), False)
    oid = repository.commit(revision, files, message)
    return reply({"success": True, "commitUrl": f"{hub.url}/{repo}/commit/{oid}", "commitOid": oid})


def info(hub, request, body, repo, revision="main"):
    repository = hub.find(repo, request)
    if repository is None:
        return error(401 if request.token is None else 404, "RepoNotFound")
    oid = repository.commit_of(revision)
    if oid is None:
        return error(404, "RevisionNotFound")
    siblings = [{"rfilename": name} for name in repository.commits[oid]]
    return reply({"id": repo, "modelId": repo, "sha": oid, "siblings": siblings, "tags": [], "private": False})


def tree(hub, request, body, repo, revision):
    repository = hub.find(repo, request)
    if repository is None:
        return error(404, "RepoNotFound")
    rows = []
    for name, file in repository.commits[repository.commit_of(revision)].items():
        lfs = {"oid": file.oid, "size": len(file.data), "pointerSize": 134}
        blob = hashlib.sha1(file.data).hexdigest()
        rows.append({"type": "file", "path": name, "size": len(file.data), "oid": blob if file.large else file.oid})
        rows[-1] |= {"lfs": lfs} if file.large else {}
    return reply(rows)


def resolve(hub, request, body, repo, revision, name):
    """A file, or for a large one a redirection to where its content is."""
    repository = hub.find(repo, request)
    if repository is None:
        return error(404, "RepoNotFound")
    oid = repository.commit_of(revision)
    if oid is None or name not in repository.commits[oid]:
        return error(404, "RevisionNotFound" if oid is None else "EntryNotFound")
    file = repository.commits[oid][name]
    headers = {"X-Repo-Commit": oid, "ETag": f'"{file.oid}"'}
    if not file.large:
        return 200, headers, file.data
    linked = {"X-Linked-Etag": f'"{file.oid}"', "X-Linked-Size": str(len(file.data))}
    return 302, {**headers, **linked, "Location": f"{hub.storage}/lfs/{file.oid}"}, b""


def lfs_download(hub, request, body, oid):
    return 200, {"ETag": f'"{oid}"'}, hub.large[oid]


REPO = r"(?P<repo>[^/]+/[^/]+?)"
REVISION = "(?P<revision>[^/]+)"
OID = "(?P<oid>[0-9a-f]{64})"
ROUTES = [
    ("POST", "/api/repos/create", create),
    ("POST", "/api/validate-yaml", validate_yaml),
    ("POST", f"/api/models/{REPO}/branch/(?P<branch>[^/]+)", create_branch),
    ("POST", f"/api/models/{REPO}/preupload/{REVISION}", preupload),
    ("POST", f"/{REPO}.git/info/lfs/objects/batch", lfs_batch),
    ("PUT", f"/lfs/{OID}", lfs_upload),
    ("POST", f"/api/models/{REPO}/commit/{REVISION}", commit),
    ("GET", f"/api/models/{REPO}", info),
    ("GET", f"/api/models/{REPO}/revision/{REVISION}", info),
    ("GET", f"/api/models/{REPO}/tree/{REVISION}", tree),
    ("GET", f"/{REPO}/resolve/{REVISION}/(?P<name>.+)", resolve),
    ("GET", f"/lfs/{OID}", lfs_download),
]


@contextmanager
def serve():
    """Run a hub on a free port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            status, headers, content = hub.answer(Request(self.command, self.path, token), body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_POST = do_PUT = answer

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.storage = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def answer_always(data: bytes):
    """Run a server that answers every request with these bytes and closes the connection. Yields its address."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(data)

    server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
