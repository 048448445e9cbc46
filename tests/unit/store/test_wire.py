"""The short way to a bucket: what it hands over, checks and gives up, and when the general client does the work."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from kubesae.errors import AccessError, StoreError
from kubesae.experiment import sha256_hex
from kubesae.store import open_store, s3_connection, s3_wire
from s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.s3

SLACK = 5.0


@pytest.fixture
def tls_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give a bucket on a server that speaks TLS, with a certificate that AWS_CA_BUNDLE names."""
    certificate = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", certificate, "-out", tmp_path / "public.pem"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    with certificate.open("ab") as file:
        file.write((tmp_path / "public.pem").read_bytes())
    (tmp_path / "server").mkdir()
    with S3Server.start(tmp_path / "server", certificate) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server.new_bucket()


@pytest.fixture
def general(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the list of requests that the general client sends from here on."""
    seen: list[str] = []
    request = s3_connection.S3Connection.request

    async def noted(self, method, arguments):
        seen.append(method)
        return await request(self, method, arguments)

    monkeypatch.setattr(s3_connection.S3Connection, "request", noted)
    return seen


def test_reads_and_writes_take_it(s3_bucket: str, general: list[str]) -> None:
    store = open_store(s3_bucket)
    data = os.urandom(3 << 20)
    store.put("k", data)
    assert store.read("k") == data
    assert store.read("k", 5, 9) == data[5:9]
    assert not store.create("k", b"")
    buffer = bytearray(1000)
    store.read_into("k", 77, memoryview(buffer))
    assert buffer == data[77:1077]
    assert general == []


def test_it_speaks_tls_with_the_authority_that_the_environment_names(
    tls_bucket: str, general: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tls_bucket, deadline=30)
    data = os.urandom(9 << 20)
    assert store.create("k", data)
    buffer = bytearray(len(data) - 1)
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda _: store.read_into("k", 1, memoryview(buffer)), range(8)):
            assert buffer == data[1:]
    assert general == []
    monkeypatch.delenv("AWS_CA_BUNDLE")
    with pytest.raises(AccessError, match=r"CERTIFICATE_VERIFY_FAILED.*AWS_CA_BUNDLE"):
        open_store(tls_bucket, deadline=30).read("k")


def test_a_tar_of_known_digest_goes_up_in_one_request(s3_bucket: str, general: list[str]) -> None:
    data = os.urandom(1 << 20) * 65
    store = open_store(s3_bucket)
    store.put("large", data, sha256=sha256_hex(data))
    assert general == []
    assert store.read("large") == data


def test_the_server_refuses_bytes_that_are_not_those_of_the_digest(
    s3_bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(s3_bucket, deadline=6)
    with caplog.at_level(logging.WARNING, "kubesae.store"), pytest.raises(StoreError, match="no success within 6 s"):
        store.put("k", b"changed on the way", sha256=sha256_hex(b"as it was"))
    assert "XAmzContentSHA256Mismatch" in caplog.text  # the last attempt may end at the deadline
    assert not store.exists("k")


def test_a_large_body_is_refused_before_it_is_sent(s3_bucket: str) -> None:
    store = open_store(s3_bucket)
    store.put("k", b"there")
    start = time.process_time()
    assert not store.create("k", bytes(32 << 20))
    assert time.process_time() - start < 5
    assert store.read("k") == b"there"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_behind_a_proxy_the_general_client_goes(
    s3_bucket: str, general: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody there
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", name)  # a connection of its own
    with pytest.raises(StoreError):
        open_store(s3_bucket, deadline=1).read("k")
    assert set(general) == {"get_object"}


class _Elsewhere(BaseHTTPRequestHandler):
    """Answers every request as S3 does for a bucket of another region."""

    def do_GET(self) -> None:
        body = b"<Error><Code>PermanentRedirect</Code><Message>not here</Message></Error>"
        self.send_response(301)
        self.send_header("x-amz-bucket-region", "eu-west-9")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_redirect_is_left_to_the_general_client(
    s3_bucket: str,
    s3_server: S3Server,
    general: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = open_store(s3_bucket)
    store.put("k", b"1")
    with HTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        credentials = s3_wire.botocore.session.Session().get_credentials()
        wire = s3_wire.Wire(credentials, f"http://127.0.0.1:{server.server_port}/bucket", "us-east-1", None)
        monkeypatch.setattr(s3_connection, "open_wire", lambda *_: wire)
        monkeypatch.setenv("AWS_SDK_UA_APP_ID", "elsewhere")
        with caplog.at_level(logging.WARNING, "kubesae.store"):
            other = open_store(s3_bucket)
            assert [other.read("k"), other.read("k")] == [b"1", b"1"]
        server.shutdown()
    assert general == ["get_object", "get_object"]
    assert [r.message for r in caplog.records if "eu-west-9" in r.message and "set AWS_REGION" in r.message]
    assert len(caplog.records) == 1
    assert s3_server.process.poll() is None


class _Trickle(BaseHTTPRequestHandler):
    """Sends a byte now and then: no wait between two bytes is long, all together never end."""

    def do_GET(self) -> None:
        self.send_response(206)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x")
                time.sleep(0.1)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_trickle_ends_at_the_deadline(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), _Trickle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        start = time.monotonic()
        with pytest.raises(StoreError, match="no success within 2 s"):
            open_store(s3_bucket, deadline=2).read_into("k", 0, memoryview(bytearray(100_000)))
        assert 2 <= time.monotonic() - start < 2 + SLACK
        server.shutdown()


def test_idle_connections_that_the_server_closed_are_not_used(s3_bucket: str) -> None:
    store = open_store(s3_bucket)
    store.put("k", b"1")
    wire = store._connection.wire(s3_bucket[5:])
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(store.read, ["k"] * 20)) == {b"1"}
    for line in wire._idle:
        line._socket.shutdown(2)
    assert store.read("k") == b"1"
