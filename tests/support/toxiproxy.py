"""A real network fault between a client and a server: toxiproxy (https://github.com/Shopify/toxiproxy) on loopback.

    with Toxiproxy.start(folder, server.endpoint) as network:
        with network.toxic("timeout", timeout=0):       # every connection, open ones too, falls silent
            ...

The program is built once, by `tools/build-server toxiproxy`, from a pinned Go module.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s3_server import BUILD, START_SECONDS, free_port
from stoppable import Stoppable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = "s3"


@dataclass
class Toxiproxy(Stoppable):
    """A running proxy before one server."""

    api: str
    process: subprocess.Popen[bytes]
    endpoint: str = ""

    @classmethod
    def start(cls, folder: Path, target: str) -> Toxiproxy:
        """Start a proxy before the server at the URL `target`."""
        program = subprocess.run([BUILD, "toxiproxy"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        port = free_port()
        with (folder / "toxiproxy.log").open("wb") as log:
            process = subprocess.Popen(
                [program, "-host", "127.0.0.1", "-port", str(port)], stdout=log, stderr=subprocess.STDOUT
            )
        proxy = cls(f"http://127.0.0.1:{port}", process)
        end = time.monotonic() + START_SECONDS
        while not proxy.endpoint:
            try:
                upstream = target.removeprefix("http://")
                made = proxy._send("POST", "/proxies", name=_NAME, listen="127.0.0.1:0", upstream=upstream)
                proxy.endpoint = f"http://{made['listen']}"
            except urllib.error.URLError:
                if time.monotonic() > end:
                    proxy.stop()
                    raise
                time.sleep(0.02)
        return proxy

    @contextlib.contextmanager
    def toxic(self, kind: str, *, upload: bool = False, share: float = 1.0, **attributes: int) -> Iterator[None]:
        """Put a toxic on the network while the body runs.

        Args:
            kind: latency, bandwidth, slow_close, timeout, reset_peer, slicer or limit_data.
            upload: what the client sends is struck, and not what the server does.
            share: of the connections that are struck.
            attributes: of the toxic, as toxiproxy's documents say.

        """
        stream = "upstream" if upload else "downstream"
        toxic = {"name": kind, "type": kind, "stream": stream, "toxicity": share, "attributes": attributes}
        self._send("POST", f"/proxies/{_NAME}/toxics", **toxic)
        try:
            yield
        finally:
            self._send("DELETE", f"/proxies/{_NAME}/toxics/{kind}")

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Refuse connections, and end the open ones, while the body runs."""
        self._send("POST", f"/proxies/{_NAME}", enabled=False)
        try:
            yield
        finally:
            self._send("POST", f"/proxies/{_NAME}", enabled=True)

    def stop(self) -> None:
        """End the proxy and wait for its end."""
        self.process.kill()
        self.process.wait()

    def _send(self, method: str, path: str, **values: object) -> dict[str, Any]:
        data = json.dumps(values).encode() if values else None
        request = urllib.request.Request(self.api + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
        return json.loads(body) if body else {}
