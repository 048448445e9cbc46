"""A hub on loopback that has one model, answers as the real one does, and can stop in the midst of a file.

with SmallHub("a/b", {"config.json": b"{}"}) as hub:
    environment = {"HF_ENDPOINT": hub.url}
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from stoppable import Stoppable

COMMIT = "1" * 40
# The least that the hub keeps apart, with a digest.
LARGE = 10_000


class SmallHub(Stoppable):
    """Serves from its construction to its exit. `seen` are the requests: method and path."""

    def __init__(self, repository: str, files: dict[str, bytes]) -> None:
        """Serve `files` as the model `repository`."""
        self.repository = repository
        self.files = files
        self.stall_at: str | None = None
        self.stalled = threading.Event()
        self.seen: list[str] = []
        self._end = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def log_message(self, *_arguments: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        """Answer a request."""
        path = request.path.partition("?")[0]
        self.seen.append(f"{request.command} {path}")
        if path.startswith(f"/api/models/{self.repository}"):
            self._send(request, 200, json.dumps(self._description()).encode(), {}, body=body)
        elif (name := path.rpartition(f"/{self.repository}/resolve/{COMMIT}/")[2]) in self.files:
            data = self.files[name]
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self._send(request, 200, data, headers, body=body)
        else:
            self._send(request, 404 if path != "/" else 200, b"", {"X-Error-Code": "EntryNotFound"}, body=body)

    def _description(self) -> dict[str, object]:
        siblings = []
        for name, data in self.files.items():
            file: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": "0" * 40}
            if len(data) >= LARGE:
                file["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 130}
            siblings.append(file)
        return {"id": self.repository, "sha": COMMIT, "siblings": siblings, "tags": [], "private": False}

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, data: bytes, headers: dict[str, str], *, body: bool
    ) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if not body:
            return
        if self.stall_at and request.path.endswith(self.stall_at):
            request.wfile.write(data[: len(data) // 2])
            request.wfile.flush()
            self.stalled.set()
            self._end.wait()
            return
        request.wfile.write(data)

    def stop(self) -> None:
        """Let go of what stalls, and stop."""
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
