"""A TCP proxy on loopback that breaks connections on demand, between a client and a real server.

    with FaultyProxy(9000) as proxy:
        proxy.next_connections("refuse", "swallow")     # then all others pass
        proxy.others = "slow"                           # or not

What it can do to a connection: "pass"; "refuse": close it at once; "swallow": pass the request on, wait for the answer,
throw it away and close; "stall": read and answer nothing; "stall-late": pass on the first 8 MiB, then stall; "slow":
wait before each piece of the answer.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque

from stoppable import Stoppable

LATE_BYTES = 8 << 20
CHUNK = 1 << 16
SLOW_SECONDS = 0.1


class FaultyProxy(Stoppable):
    """Listens from its construction to its close; each connection is served by a thread."""

    def __init__(self, target_port: int) -> None:
        """Pass connections on to this port of 127.0.0.1."""
        self._target = target_port
        self._faults: deque[str] = deque()
        self._open: list[socket.socket] = []
        self._silent: list[socket.socket] = []
        self._closing = threading.Event()
        self.others = "pass"
        self.seen = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def next_connections(self, *faults: str) -> None:
        """Say what happens to the connections that come next, one word each."""
        self._faults.extend(faults)

    def silence(self) -> None:
        """Let nothing more pass on the connections that are open now: established, and dead."""
        self._silent += self._open

    def stop(self) -> None:
        """Close all connections."""
        self._closing.set()
        for each in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.seen += 1
            self._open.append(client)
            fault = self._faults.popleft() if self._faults else self.others
            threading.Thread(target=self._serve, args=(client, fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: str) -> None:
        with contextlib.suppress(OSError), client:
            if fault == "refuse":
                return
            if fault == "stall":
                self._closing.wait()
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                self._open.append(server)
                limit = LATE_BYTES if fault == "stall-late" else None
                threading.Thread(target=self._copy, args=(client, server, limit), daemon=True).start()
                if fault == "swallow":
                    while (answer := server.recv(CHUNK)).startswith(b"HTTP/1.1 100 "):
                        client.sendall(answer)
                else:
                    self._copy(server, client, None, SLOW_SECONDS if fault == "slow" else 0.0)
                client.shutdown(socket.SHUT_RDWR)  # a close alone waits for the thread that reads

    def _copy(self, source: socket.socket, target: socket.socket, limit: int | None, pause: float = 0.0) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                passed += len(data)
                if (limit is not None and passed > limit) or source in self._silent:
                    self._closing.wait()
                    return
                if pause:
                    self._closing.wait(pause)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
