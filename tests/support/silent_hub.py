"""A hub on loopback that goes wrong: it answers the first words of a download as the real one would, then not.

    with SilentHub("stall") as hub:
        environment = {"HF_ENDPOINT": hub.url}

"stall": the body of every file stops after its first byte; "503": every answer is that status. The hub itself cannot be
had in a test; what is tested here is its client, whose failures these are.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from stoppable import Stoppable

COMMIT = "0" * 40
SIZE = 1000


class SilentHub(Stoppable):
    """Serves from its construction to its exit; `seen` are the requests."""

    def __init__(self, fault: str) -> None:
        """Go wrong by `fault`."""
        self.seen: list[str] = []
        self._end = threading.Event()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(503 if fault == "503" else 200, SIZE)

            def do_GET(self) -> None:
                if fault == "503":
                    self.answer(503, 0)
                elif self.path.startswith("/api/"):
                    body = json.dumps({"id": "a/b", "sha": COMMIT, "siblings": [{"rfilename": "config.json"}]}).encode()
                    self.answer(200, len(body))
                    self.wfile.write(body)
                else:
                    self.answer(200, SIZE)
                    self.wfile.write(b"{")
                    self.wfile.flush()
                    hub._end.wait()

            def answer(self, status: int, size: int) -> None:
                hub.seen.append(f"{self.command} {self.path}")
                self.send_response(status)
                self.send_header("ETag", '"etag"')
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("Content-Length", str(size))
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Let go of what stalls, and stop."""
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
