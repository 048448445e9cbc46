"""One HTTP connection on which no wait lasts beyond a given time, and no byte is copied twice.

`http.client` gets a `Line` in place of its socket: the bound then holds wherever it waits, for a header as for a body.
Its own time-outs are between two bytes, so a server that sends one now and then would keep it for ever.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from urllib3.util import wait_for_read

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

CONNECT_SECONDS = 10.0
SILENCE = 60.0
CONTINUE_SECONDS = 1.0
SLICE_BYTES = 1 << 20


class Line(io.RawIOBase):
    """A connection to the server of a URL."""

    def __init__(self, url: str, context: ssl.SSLContext | None, end: float) -> None:
        """Connect, until the time `end`, which is that of all that follows unless it is set anew."""
        super().__init__()
        self.end = end
        parts = urlsplit(url)
        host, port, wait = str(parts.hostname), parts.port, min(CONNECT_SECONDS, self._left())
        if context is None:
            self._http = http.client.HTTPConnection(host, port, timeout=wait)
        else:
            self._http = http.client.HTTPSConnection(host, port, timeout=wait, context=context)
        self._http.connect()
        self._http.auto_open = 0
        self._socket = self._http.sock
        self._http.sock = self
        self._reader = _Reader(self)

    def exchange(
        self, method: str, path: str, headers: Mapping[str, str], body: memoryview | None
    ) -> http.client.HTTPResponse:
        """Send a request and return the answer, whose body is still to be read."""
        self._http.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            self._http.putheader(name, value)
        self._http.endheaders()
        if body is not None and ("Expect" not in headers or self._wants_body()):
            try:
                self.sendall(body)
            except (BrokenPipeError, ConnectionResetError):
                if self.is_quiet():
                    raise
                # The server listens no longer, and has said why: a refusal, which is told apart from a broken line.
        return self._http.getresponse()

    def _wants_body(self) -> bool:
        """Say whether the server waits for the body (it says so, or nothing for a second), or has answered already."""
        end = self.end
        self.end = min(end, time.monotonic() + CONTINUE_SECONDS)
        try:
            status = self._reader.peek(1).split(b" ", 2)[1:2]
        except TimeoutError:
            return True
        finally:
            self.end = end
        if status != [b"100"]:
            return False
        while self._reader.readline().strip():
            pass
        return True

    def is_quiet(self) -> bool:
        """Say whether the connection can be used again: nothing came, not even its end."""
        return not wait_for_read(self._socket, 0)

    def hang_up(self) -> None:
        """End the connection."""
        self._socket.close()

    def close(self) -> None:
        """Do nothing: http.client closes what it takes for a socket before the answer has been read."""

    def __del__(self) -> None:
        """End the connection."""
        if hasattr(self, "_socket"):
            self.hang_up()

    def readable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive what there is, at least a byte, or 0 at the end."""
        self._socket.settimeout(self._left())
        return self._socket.recv_into(buffer)

    def sendall(self, data: Any) -> None:
        """Send all bytes of `data`."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), SLICE_BYTES):
            self._socket.settimeout(self._left())
            self._socket.sendall(view[start : start + SLICE_BYTES])

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return the one reader of this connection: a second one would miss what the first has read ahead."""
        return self._reader

    def _left(self) -> float:
        """Seconds that the next wait may take."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, SILENCE)


class _Reader(io.BufferedReader):
    """A reader that outlives the answers read by it: http.client closes it after each."""

    def close(self) -> None:
        pass
