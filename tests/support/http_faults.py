"""A proxy that speaks HTTP before a real server, and gives other answers than the server's on demand.

    with HttpFaults(server.endpoint) as proxy:
        proxy.next(Answer(503, "SlowDown", times=5))                # the next five requests get that
        proxy.next(Answer(409, "ConditionalRequestConflict", method="PUT", key="/ledger/"))

An answer may be given instead of the server's (the request never reaches it), `after` the server has done what was
asked (as when its answer gets lost), or it may be the server's own, cut off in its middle (`truncated`).
"""

from __future__ import annotations

import http.client
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from stoppable import Stoppable

_OWN_HEADERS = {"connection", "transfer-encoding", "content-length", "expect", "keep-alive"}


@dataclass
class Answer:
    """What is answered to the next `times` requests with this method, and `key` (an expression) in their path."""

    status: int = 500
    code: str = "InternalError"
    method: str = "GET|PUT|POST|DELETE"
    key: str = ""
    times: int = 1
    after: bool = False
    truncated: bool = False
    given: int = field(default=0, init=False)

    def matches(self, method: str, path: str) -> bool:
        """Whether a request gets this answer."""
        return self.given < self.times and bool(re.fullmatch(self.method, method) and re.search(self.key, path))


class HttpFaults(Stoppable, ThreadingHTTPServer):
    """Listens from its construction to its close."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        """Pass requests on to the server at the URL `target`."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target.removeprefix("http://")
        self.endpoint = f"http://127.0.0.1:{self.server_address[1]}"
        self._answers: list[Answer] = []
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def next(self, *answers: Answer) -> None:
        """Say what is answered to the requests that come next."""
        with self._lock:
            self._answers += answers

    def pick(self, method: str, path: str) -> Answer | None:
        """Return what a request gets, None: the server's answer."""
        with self._lock:
            for answer in self._answers:
                if answer.matches(method, path):
                    answer.given += 1
                    return answer
        return None

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about connections that their client has closed."""

    def stop(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpFaults

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.pick(self.command, self.path)
        if fault and not (fault.after or fault.truncated):
            self._refuse(fault)
            return
        status, headers, data = self._forward(body)
        if fault and not fault.truncated:
            self._refuse(fault)
            return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _OWN_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault else data)
        self.close_connection = fault is not None

    do_GET = do_PUT = do_POST = do_DELETE = _answer  # the names that http.server calls

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = http.client.HTTPConnection(self.server.target, timeout=30)
        server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _OWN_HEADERS:
                server.putheader(name, value)
        server.putheader("Content-Length", str(len(body)))
        server.endheaders(body)
        answer = server.getresponse()
        data = answer.read()
        server.close()
        return answer.status, answer.getheaders(), data

    def _refuse(self, fault: Answer) -> None:
        data = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>as the test says</Message></Error>"
        self.send_response_only(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *_: object) -> None:
        """Print nothing."""
