"""The local server: objects and ranges of them, from a folder and from S3, to pages of its own address alone."""

from __future__ import annotations

import http.client
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubesae.browse import PageServer
from kubesae.errors import ConfigError
from kubesae.ledger import keys
from kubesae.store import open_store
from paged import SAE

PAGE = f"/interpret/{SAE}/index.html"


@contextmanager
def serving(store, **settings):
    with PageServer(store, SAE, **settings) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def asked(server, path, *, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
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


def test_another_name_for_this_machine_is_refused(server):
    """A site whose name leads here could otherwise read the bucket through its visitor's browser."""
    assert asked(server, PAGE, Host=f"evil.example:{server.server_port}")[0] == 403
    assert asked(server, PAGE, Host=f"localhost:{server.server_port}")[0] == 200


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


def test_a_store_that_fails_is_a_bad_gateway(copied):
    store, _ = copied
    with serving(store) as server:
        shutil.rmtree(store.url)
        Path(store.url).write_text("no folder any more")
        assert asked(server, PAGE)[0] in {404, 502}
