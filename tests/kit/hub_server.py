"""A tiny Hugging Face hub on this machine: one repository's files, by the hub's own HTTP interface.

It serves what `snapshot_download` and the checksum check ask for, ranges included, takes what
`upload_folder` commits, and nothing else. `break_after` cuts the first answer with a file's content
after so many bytes, as a broken connection does.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"  # that any branch is at


class Hub(ThreadingHTTPServer):
    """The server's state."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], stated: dict[str, bytes], break_after: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.stated = stated  # contents of which checksums are stated instead of the files' own
        self.break_after = break_after
        self.created: list[dict[str, Any]] = []  # repositories, as they were asked for
        self.sizes: dict[str, int] = {}  # stated instead of the files' own
        self.ranges: list[str] = []  # asked for

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sha256(self, name: str) -> str:
        return hashlib.sha256(self.stated.get(name, self.files[name])).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if path == "/api/repos/create":
            self.server.created.append(json.loads(text))
            self._json({"url": f"{self.server.address}/tester/run", "name": "tester/run"}, True)
        elif "/preupload/" in path:
            names = [file["path"] for file in json.loads(text)["files"]]
            mode = {"uploadMode": "regular", "shouldIgnore": False}
            modes = [{"path": name, **mode} for name in names]
            self._json({"files": modes}, True)
        elif "/commit/" in path:
            for line in map(json.loads, text.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[line["value"]["path"]] = content
            self._json(
                {
                    "commitUrl": f"{self.server.address}/tester/run/commit/{COMMIT}",
                    "commitOid": COMMIT,
                },
                True,
            )
        else:
            self._json({"errors": [], "warnings": []}, True)  # the card's YAML is good

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = re.search(r"/(revision|tree|resolve)/([^/]+)/?(.*)$", path)
        what, revision, name = asked.groups() if asked else ("", "", "")
        if re.fullmatch("/api/models/[^/]+/[^/]+", path):
            what = "revision"
        commit = revision if re.fullmatch("[0-9a-f]{40}", revision) else COMMIT
        if what == "revision":
            siblings = [
                {"rfilename": name, "size": self.server.sizes.get(name, len(content))}
                for name, content in self.server.files.items()
            ]
            self._json({"id": "owner/set", "sha": commit, "siblings": siblings}, body)
        elif what == "tree":
            self._json([self._entry(name) for name in self.server.files], body)
        elif what == "resolve" and name in self.server.files:
            self._file(name, commit, body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _entry(self, name: str) -> dict[str, Any]:
        sha256, size = self.server.sha256(name), len(self.server.files[name])
        lfs = {"oid": sha256, "size": size, "pointerSize": 130}
        return {"type": "file", "path": name, "size": size, "oid": "0" * 40, "lfs": lfs}

    def _json(self, content: object, body: bool) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _file(self, name: str, commit: str, body: bool) -> None:
        content, first = self.server.files[name], 0
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            self.server.ranges.append(asked)
            first = int(asked.removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if first else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Linked-ETag", f'"{self.server.sha256(name)}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("ETag", f'"{self.server.sha256(name)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return
        if self.server.break_after:
            cut, self.server.break_after = self.server.break_after, 0
            self.wfile.write(content[first : first + cut])
            self.close_connection = True
        else:
            self.wfile.write(content[first:])


@contextmanager
def serve(
    files: dict[str, bytes], stated: dict[str, bytes] | None = None, break_after: int = 0
) -> Iterator[Hub]:
    """The hub, running.

    Args:
        files: their contents, by name.
        stated: other contents whose checksums are stated instead, for files damaged on the way.
        break_after: bytes after which the first file's answer is cut; 0: never.
    """
    with Hub(files, stated or {}, break_after) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
