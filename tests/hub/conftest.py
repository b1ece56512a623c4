"""A server like a hub on loopback, for the real huggingface_hub client."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "owner/Tiny-GGUF"
TOKEN = "hf_secret"


@dataclass
class Hub:
    """One repository, `NAME`, and how it behaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: bool = False  # files need a token
    private: bool = False  # so does the list of files
    cut_after: int | None = None  # bytes of a body, behind which the connection ends
    hold: threading.Event | None = None  # what a connection waits for before it ends
    ignores_range: bool = False
    wrong_bytes: bool = False
    status: int | None = None  # of every answer
    listed: bytes | None = None  # in the place of the list of files
    etag: str | None = None  # in the place of every file's SHA-256
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, range
    url: str = ""
    cdn: str = ""  # another host, where the files' bytes are

    def bytes_of(self, path: str) -> bytes:
        return self.files[path][::-1] if self.wrong_bytes else self.files[path]

    def ranges(self, method: str = "GET") -> list[str | None]:
        """Of all bodies that were asked for, in order."""
        return [asked for verb, path, asked in self.requests if verb == method and path.startswith("/cdn/")]


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        hub.requests.append((self.command, path, self.headers.get("Range")))
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if hub.status:
            self._answer(hub.status, {})
        elif path.startswith("/cdn/"):
            assert not self.headers.get("Authorization")  # a token is for the hub alone
            self._file(path.removeprefix("/cdn/"))
        elif path == f"/api/models/{NAME}":
            if hub.private and not allowed:
                self._refuse(401, "RepoNotFound")
            else:
                self._list()
        elif match := re.fullmatch(rf"/{NAME}/resolve/[^/]+/(.*)", path):
            if (hub.gated or hub.private) and not allowed:
                self._refuse(401 if hub.private else 403, "RepoNotFound" if hub.private else "GatedRepo")
            elif match[1] in hub.files:
                self._redirect(match[1])
            else:
                self._refuse(404, "EntryNotFound")
        else:
            self._refuse(401 if path.startswith("/api/models/owner/") else 404, "RepoNotFound")

    def _list(self) -> None:
        siblings = [{"rfilename": name, "size": len(content)} for name, content in self.hub.files.items()]
        body = {"id": NAME, "modelId": NAME, "sha": COMMIT, "private": False, "tags": [], "siblings": siblings}
        content = json.dumps(body).encode() if self.hub.listed is None else self.hub.listed
        self._answer(200, {"Content-Type": "application/json"}, content)

    def _redirect(self, name: str) -> None:
        content = self.hub.files[name]
        etag = hashlib.sha256(content).hexdigest() if self.hub.etag is None else self.hub.etag
        self._answer(302, {
            "X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{etag}"',
            "Location": f"{self.hub.cdn}/cdn/{name}",
        })  # fmt: skip

    def _file(self, name: str) -> None:
        content, headers, status = self.hub.bytes_of(name), dict[str, str](), 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not self.hub.ignores_range:
            last = int(asked[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {asked[1]}-{last}/{len(content)}"
            content, status = content[int(asked[1]) : last + 1], 206
        self._answer(status, headers, content, self.hub.cut_after)

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, {"X-Error-Code": code, "X-Error-Message": code}, b"")

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"", cut_after: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut_after])
            if cut_after is not None and cut_after < len(body):
                self.wfile.flush()
                if self.hub.hold:
                    self.hub.hold.wait()
                self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub without files, of which this process's client knows, with a cache of its own and without a token."""
    hub = Hub()
    handler = type("Handler", (Handler,), {"hub": hub})
    servers = [ThreadingHTTPServer((host, 0), handler) for host in ("127.0.0.1", "127.0.0.2")]
    hub.url, hub.cdn = (f"http://{server.server_address[0]!s}:{server.server_address[1]}" for server in servers)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 16)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)  # between attempts
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
    for thread in threads:
        thread.start()
    yield hub
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()
