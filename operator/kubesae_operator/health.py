"""What the kubelet and Prometheus ask for: /healthz, /readyz, /metrics.

The operator is alive while every watch has heard something in the last five minutes (the server sends a bookmark each
minute, and an answer that falls silent is asked for anew), and while its own loop turns.
"""

from __future__ import annotations

import logging
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from prometheus_client import CollectorRegistry

    from kubesae_operator.watch import Watch

log = logging.getLogger(__name__)

DEAF_SECONDS = 300.0
STUCK_SECONDS = 300.0


class Health:
    """Whether the operator works. `turned` is to be called by its loop."""

    def __init__(self, watches: Sequence[Watch[Any]], registry: CollectorRegistry) -> None:
        """Look at these."""
        self.watches = watches
        self.registry = registry
        self._turned = time.monotonic()

    def turned(self) -> None:
        """Note that the loop has turned."""
        self._turned = time.monotonic()

    def complaints(self) -> list[str]:
        """Return what is wrong, a line each."""
        now = time.monotonic()
        deaf = [(watch.path, now - watch.heard) for watch in self.watches if now - watch.heard > DEAF_SECONDS]
        lines = [f"watch of {path}: nothing heard for {seconds:.0f} s" for path, seconds in deaf]
        if now - self._turned > STUCK_SECONDS:
            lines.append(f"the loop has not turned for {now - self._turned:.0f} s")
        return lines

    def unready(self) -> list[str]:
        """Return what has not been seen yet, a line each."""
        return [f"{watch.path} has not been listed yet" for watch in self.watches if not watch.synced]


def serve(health: Health, port: int) -> ThreadingHTTPServer:
    """Return a server for `health` on `port`, not running yet."""

    def metrics() -> bytes:
        return generate_latest(health.registry)

    pages: dict[str, Callable[[], list[str]]] = {"/healthz": health.complaints, "/readyz": health.unready}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, metrics(), CONTENT_TYPE_LATEST)
            elif self.path in pages:
                lines = pages[self.path]()
                self._answer(503 if lines else 200, "\n".join(lines or ["ok"]).encode() + b"\n", "text/plain")
            else:
                self._answer(404, b"/healthz /readyz /metrics\n", "text/plain")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            log.debug(format, *args)

    server = ThreadingHTTPServer(("", port), Handler)
    server.daemon_threads = True
    return server
