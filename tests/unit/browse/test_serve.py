"""The local server: objects and ranges of them, from a folder and from S3, to pages of its own address alone."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

import pytest

from kubesae.browse import PageServer
from kubesae.errors import ConfigError, StoreError
from kubesae.ledger import keys
from kubesae.store import open_store
from paged import SAE, serving

PAGE = f"/interpret/{SAE}/index.html"


def asked(server, path, *, method="GET", **headers):
    connection = http.client.HTTPConnection(server.server_address[0], server.server_port, timeout=10)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


@pytest.fixture
def server(written):
    with serving(written[0]) as found:
        yield found


def test_the_root_leads_to_the_page(server, written):
    status, _, headers = asked(server, "/")
    assert (status, headers["Location"]) == (302, PAGE)
    status, body, headers = asked(server, PAGE)
    assert (status, body) == (200, written[0].read(keys.page(SAE)))
    assert headers["Content-Type"] == "text/html"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert server.url == f"http://127.0.0.1:{server.server_port}{PAGE}"


@pytest.mark.parametrize(
    ("asked_for", "first", "stop"),
    [("bytes=10-19", 10, 20), ("bytes=10-", 10, None), ("bytes=-7", -7, None), ("bytes=0-99999999", 0, None)],
)
def test_ranges_are_parts_of_the_object(server, written, asked_for, first, stop):
    store = written[0]
    (key,) = (key for key in store.list(keys.page_features(SAE)) if key.endswith(".bin"))
    whole = store.read(key)
    status, body, headers = asked(server, f"/{key}", Range=asked_for)
    assert (status, body) == (206, whole[first:stop])
    start = first if first >= 0 else len(whole) + first
    assert headers["Content-Range"] == f"bytes {start}-{start + len(body) - 1}/{len(whole)}"


def test_a_range_beyond_the_end_is_refused_and_none_gives_everything(server, written):
    key = keys.page_index(SAE)
    size = written[0].size(key)
    status, _, headers = asked(server, f"/{key}", Range=f"bytes={size}-{size + 5}")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{size}")
    assert asked(server, f"/{key}", Range="bytes=0-1,4-5")[:2] == (200, written[0].read(key))
    status, body, headers = asked(server, f"/{key}", method="HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", str(size))


@pytest.mark.parametrize(
    "path",
    [
        f"/interpret/{SAE}/interpret.json",
        "/tokens/manifest.json",
        "/../secret",
        "/interpret/../tokens/manifest.json",
        f"/interpret/{SAE}/page/%2e%2e/interpret.json",
        "/reason/../tokens/tokenizer.json",
        f"/interpret/{SAE}/page/none.json",
    ],
)
def test_nothing_but_pages_is_served(server, path):
    assert asked(server, path)[0] == 404


def test_of_reasoning_pages_alone_are_served(server, written):
    for name in ("index.html", "traces.json", "codes/unit-000000.safetensors"):
        written[0].put(f"reason/another/few/{name}", b"{}")
    assert asked(server, "/reason/another/few/index.html")[0] == 200
    assert asked(server, "/reason/another/few/traces.json")[0] == 404
    assert asked(server, "/reason/another/few/codes/unit-000000.safetensors")[0] == 404


def test_another_name_for_this_machine_is_refused(server):
    """A site whose name leads here could otherwise read the bucket through its visitor's browser."""
    assert asked(server, PAGE, Host=f"evil.example:{server.server_port}")[0] == 403
    for name in (f"localhost:{server.server_port}", "localhost", "127.0.0.1:8000"):  # of tunnels, too
        assert asked(server, PAGE, Host=name)[0] == 200


def test_every_address_of_this_machine_alone_answers_to_itself(written):
    with serving(written[0], host="127.0.0.2") as server:
        assert asked(server, PAGE, Host=f"127.0.0.2:{server.server_port}")[0] == 200
        assert asked(server, PAGE, Host=f"evil.example:{server.server_port}")[0] == 403


def test_a_port_that_is_taken_is_the_user_s_to_change(server, written):
    with pytest.raises(ConfigError, match=f"127.0.0.1:{server.server_port} cannot be listened on"):
        PageServer(written[0], SAE, port=server.server_port)


@pytest.mark.s3
def test_a_private_bucket_is_read_with_the_user_s_credentials(written, s3_bucket):
    store = open_store(f"{s3_bucket}/some/prefix", deadline=30)
    for path in Path(written[0].url).rglob("*"):
        if path.is_file():
            store.put_file(str(path.relative_to(written[0].url)), path)
    (key,) = (key for key in store.list(keys.page_features(SAE)) if key.endswith(".bin"))
    with serving(store) as server:
        assert asked(server, PAGE)[1] == written[0].read(keys.page(SAE))
        assert asked(server, f"/{key}", Range="bytes=5-24")[:2] == (206, written[0].read(key, 5, 25))
        assert asked(server, f"/interpret/{SAE}/page/none")[0] == 404


def test_a_store_that_fails_is_a_bad_gateway(written, monkeypatch):
    def read(*_):
        raise StoreError("s3://bucket does not answer.")

    monkeypatch.setattr(type(written[0]), "read", read)
    with serving(written[0]) as server:
        assert asked(server, PAGE)[:2] == (502, b"s3://bucket does not answer.")


@pytest.mark.parametrize("line", ["GET http://[ HTTP/1.1", f"GET {PAGE} HTTP/1.1\r\nRange: bytes={'9' * 5000}-"])
def test_what_is_no_request_is_answered(server, line, capfd):
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(f"{line}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.split()[1] in {b"404", b"200"}
    assert not capfd.readouterr().err


def test_a_head_reads_nothing(server, written, monkeypatch):
    (key,) = (key for key in written[0].list(keys.page_features(SAE)) if key.endswith(".bin"))
    size = written[0].size(key)
    monkeypatch.setattr(type(written[0]), "read", None)
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("HEAD", f"/{key}")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Content-Length"], answer.read()) == (200, str(size), b"")
    connection.close()
