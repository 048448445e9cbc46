"""Listings: what a server may write, what is no listing, and going on after a failure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesae.store import open_store
from kubesae.store.s3_failures import Kind, S3Failure
from kubesae.store.s3_listing import Entry, Listing, parse_page

if TYPE_CHECKING:
    from s3_server import S3Server

NOON = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)
NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


def page(*keys: str, encoded: bool = True, token: str = "", space: str = NAMESPACE, time: str = "") -> bytes:
    written = [quote(key, safe="/") if encoded else escape(key) for key in keys]
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>{time or '2026-11-26T12:00:00.000Z'}</LastModified>"
        f"<ETag>&quot;abc&quot;</ETag><Size>{i}</Size></Contents>"
        for i, key in enumerate(written)
    )
    more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    encoding = "<EncodingType>url</EncodingType>" if encoded else ""
    return f'<?xml version="1.0"?><ListBucketResult{space}>{encoding}{more}{entries}</ListBucketResult>'.encode()


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
def test_a_page_is_read_as_it_was_written(keys: list[str]) -> None:
    expected = [Entry(key, i, NOON, '"abc"') for i, key in enumerate(keys)]
    assert parse_page(page(*keys)) == (expected, None)
    if all(key.isprintable() for key in keys):  # without encoding, XML cannot say the others
        assert parse_page(page(*keys, encoded=False)) == (expected, None)


@pytest.mark.parametrize("space", ["", NAMESPACE, ' xmlns="http://doc.s3.amazonaws.com/2006-03-01"'])
def test_servers_name_the_namespace_or_not(space: str) -> None:
    entries, token = parse_page(page("a b", "c", space=space, token="t=="))
    assert [entry.key for entry in entries] == ["a b", "c"]
    assert token == "t=="


@pytest.mark.parametrize(
    "time",
    ["2026-11-26T12:00:00Z", "2026-11-26T12:00:00.000Z", "Thu, 26 Nov 2026 12:00:00 GMT", "2026-11-26T13:00:00+01:00"],
)
def test_a_time_is_read_in_every_form_that_servers_give_it(time: str) -> None:
    ((entry,), _) = parse_page(page("a", time=time))
    assert entry.modified == NOON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>gateway</html>",
        b"not xml",
        page("a", "b")[:-30],
        page("a", time="noon"),
        page("a").replace(b"<Size>0</Size>", b""),
        page("a", token="t").replace(b"<NextContinuationToken>t</NextContinuationToken>", b""),
        b"<Error><Code>SlowDown</Code></Error>",
    ],
    ids=["empty", "a page of a proxy", "no XML", "cut off", "no time", "no size", "no token", "an error"],
)
def test_what_is_no_listing_is_asked_for_again(body: bytes) -> None:
    with pytest.raises(S3Failure, match="no listing") as failed:
        parse_page(body)
    assert failed.value.kind is Kind.TRANSIENT


class Pages:
    """In place of a wire: pages, or failures, one an answer."""

    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.queries: list[dict[str, str]] = []

    def list(self, query: dict[str, str], _end: float) -> bytes:
        self.queries.append(dict(query))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_an_attempt_that_fails_is_gone_on_from_where_it_was() -> None:
    wire = Pages(page("a", "b", token="next"), ConnectionResetError(), page("c"))
    listing = Listing("bucket", "p/", after="p/0")
    with pytest.raises(ConnectionResetError):
        listing.over_wire(wire, 0.0)  # type: ignore[arg-type]
    assert [entry.key for entry in listing.over_wire(wire, 0.0)] == ["a", "b", "c"]  # type: ignore[arg-type]
    tokens = [query.get("continuation-token") for query in wire.queries]
    assert tokens == [None, "next", "next"]
    assert all(query["prefix"] == "p/" and query["start-after"] == "p/0" for query in wire.queries)


def test_a_limit_means_one_page() -> None:
    wire = Pages(page("a", token="next"))
    assert len(Listing("bucket", "", limit=1).over_wire(wire, 0.0)) == 1  # type: ignore[arg-type]
    assert wire.queries[0]["max-keys"] == "1"


@pytest.mark.s3
def test_both_ways_list_the_same(s3_bucket: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(s3_bucket)
    bucket = s3_bucket.removeprefix("s3://").partition("/")[0]
    awkward = ["a b", "a+b", "a%20b", "a&b=c", "a/b~c", "ä", "z?", "q#r", 'k"l<m>']
    for key in [*awkward, *(f"many/{i:04d}" for i in range(1100))]:
        s3_server.client.put_object(Bucket=bucket, Key=key, Body=b"x")
    short = store.list()
    assert set(awkward) < set(short)
    assert len(short) == len(awkward) + 1100
    after = store.list("many/", after="many/0499", limit=3)
    assert list(after) == ["many/0500", "many/0501", "many/0502"]
    assert list(store.list("a b")) == ["a b"]
    monkeypatch.setattr("kubesae.store.s3_connection.open_wire", lambda *_: None)
    general = open_store(s3_bucket)
    assert general.list() == short
    assert general.list("many/", after="many/0499", limit=3) == after
