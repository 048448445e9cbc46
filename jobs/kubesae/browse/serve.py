"""Serve pages from a store to a browser on this machine: ranges of objects, with the user's credentials, read-only.

    with PageServer(output, "layer-012-topk-4608", port=0) as server:
        print(server.url)
        server.serve_forever()

So a private bucket can be browsed. Only what pages show is served, and only to pages of its own address: another site's
page, which a browser could let ask under a name that it points here, is refused by the name that it asks for.
"""

from __future__ import annotations

import ipaddress
import mimetypes
import re
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from kubesae.errors import ConfigError, KubesaeError, MissingError
from kubesae.ledger import keys
from kubesae.store.store import is_key

if TYPE_CHECKING:
    from kubesae.store import Store

LOOPBACK = "127.0.0.1"
_SERVED = re.compile(r"interpret/[^/]+/(index\.html|page/[^/]+|features/[^/]+)|reason/[^/]+/[^/]+/index\.html")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_PATIENCE = 60.0


class PageServer(ThreadingHTTPServer):
    """Serves the pages of a store. `url`: where the page of the SAE is."""

    daemon_threads = True

    def __init__(self, output: Store, sae: str, *, host: str = LOOPBACK, port: int = 0) -> None:
        """Listen, on a free port if `port` is 0.

        Raises:
            ConfigError: the port is taken, or there is no such address here.

        """
        self.output = output
        self.sizes: dict[str, int] = {}  # of files that are named by their content
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} cannot be listened on: {error}. Give another --port or --host."
            ) from error
        self.start = f"/{quote(keys.page(sae))}"
        self.names = {LOOPBACK, "localhost", host} if _is_loopback(host) else None
        self.url = f"http://{host}:{self.server_port}{self.start}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that breaks off."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Handler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version = "kubesae"
    sys_version = ""
    timeout = _PATIENCE

    def do_GET(self) -> None:  # the name that the library looks for
        """Answer with an object, or a range of it."""
        self._answer()

    def do_HEAD(self) -> None:
        """The same without the bytes."""
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Say nothing of each request."""

    def _answer(self) -> None:
        path = unquote(self.path.partition("?")[0])
        name = self.headers.get("Host", "").partition(":")[0]
        if self.server.names is not None and name not in self.server.names:
            return self._say(HTTPStatus.FORBIDDEN, "This server answers to its own address alone.")
        if path == "/":
            return self._say(HTTPStatus.FOUND, "", Location=self.server.start)
        key = path[1:]
        if not is_key(key) or not _SERVED.fullmatch(key):
            return self._say(HTTPStatus.NOT_FOUND, f"Nothing is served at {path}.")
        try:
            return self._object(key)
        except MissingError as error:
            return self._say(HTTPStatus.NOT_FOUND, str(error))
        except KubesaeError as error:
            return self._say(HTTPStatus.BAD_GATEWAY, str(error))

    def _object(self, key: str) -> None:
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None or not any(match.groups()):
            if self.command == "HEAD":
                return self._send(HTTPStatus.OK, b"", key, **{"Content-Length": str(self._size(key))})
            return self._send(HTTPStatus.OK, self.server.output.read(key), key)
        size = self._size(key)
        first, last = match.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            headers = {"Content-Range": f"bytes */{size}"}
            return self._say(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"It has {size} bytes.", **headers)
        data = self.server.output.read(key, start, stop)
        return self._send(
            HTTPStatus.PARTIAL_CONTENT, data, key, **{"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        )

    def _size(self, key: str) -> int:
        if not key.endswith(".bin"):
            return self.server.output.size(key)
        if key not in self.server.sizes:
            self.server.sizes[key] = self.server.output.size(key)
        return self.server.sizes[key]

    def _send(self, status: HTTPStatus, data: bytes, key: str, **headers: str) -> None:
        kind = mimetypes.guess_type(key)[0] if key.endswith((".html", ".json")) else None
        self._reply(status, data, kind or "application/octet-stream", {"Accept-Ranges": "bytes", **headers})

    def _say(self, status: HTTPStatus, text: str, **headers: str) -> None:
        self._reply(status, text.encode(), "text/plain; charset=utf-8", headers)

    def _reply(self, status: HTTPStatus, data: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        fixed = {"Content-Type": kind, "Content-Length": str(len(data)), "Cache-Control": "no-cache"}
        fixed |= {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}
        for name, value in (fixed | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
