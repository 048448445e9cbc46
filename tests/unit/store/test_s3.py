"""What only an S3 store does: refusals, deadlines, retries, aborted uploads. A real server, a real network between."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from faulty_proxy import FaultyProxy
from kubesae.errors import AccessError, ConfigError, Interrupted, MissingError, StoreError
from kubesae.store import TALLY, Store, open_store, s3_connection
from kubesae.store.s3_failures import Kind, S3Failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from s3_server import S3Server

pytestmark = pytest.mark.s3

SLACK = 5.0  # seconds beyond a deadline for a busy machine


@pytest.fixture
def proxy(s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Put a proxy between the stores opened from here on and the server."""
    assert s3_bucket
    with FaultyProxy(int(s3_server.endpoint.rpartition(":")[2])) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def every_call(store: Store, tmp_path: Path) -> list[tuple[str, object]]:
    """All methods that talk to the server, to see that each ends the same way."""
    (tmp_path / "source").write_bytes(b"x")
    return [
        ("read", lambda: store.read("k")),
        ("read a range", lambda: store.read("k", 1, 2)),
        ("read_into", lambda: store.read_into("k", 0, memoryview(bytearray(1)))),
        ("size", lambda: store.size("k")),
        ("exists", lambda: store.exists("k")),
        ("list", store.list),
        ("put", lambda: store.put("k", b"")),
        ("create", lambda: store.create("k", b"")),
        ("put_file", lambda: store.put_file("k", tmp_path / "source")),
        ("get_file", lambda: store.get_file("k", tmp_path / "target")),
        ("delete", lambda: store.delete("k")),
        ("probe", store.probe),
    ]


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://UPPER/x", "s3://b", "s3://bucket/../x", "s3://bucket//x"])
def test_what_is_no_s3_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(url)


def test_a_store_can_be_a_whole_bucket(s3_bucket: str, s3_server: S3Server) -> None:
    store = open_store(f"{s3_bucket}/")
    assert store.url == s3_bucket
    store.put("top", b"1")
    store.child("below").put("k", b"2")
    assert list(store.list()) == ["below/k", "top"]
    assert store.url_of("top") == f"{s3_bucket}/top"
    answer = s3_server.client.get_object(Bucket=s3_bucket[5:], Key="below/k")
    assert answer["Body"].read() == b"2"


def test_browsers_are_told_what_an_object_is(s3_bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(b"<p>")
    store = open_store(s3_bucket)
    store.put_file("report.html", tmp_path / "page")
    store.create("config.json", b"{}")
    store.put("part.weights", b"")
    kinds = [
        s3_server.client.head_object(Bucket=s3_bucket[5:], Key=key)["ContentType"]
        for key in ("report.html", "config.json", "part.weights")
    ]
    assert kinds == ["text/html", "application/json", "application/octet-stream"]


def test_foreign_objects_are_not_listed(s3_bucket: str, s3_server: S3Server) -> None:
    for key in ("folder/", ".hidden", "prefix/k"):
        s3_server.client.put_object(Bucket=s3_bucket[5:], Key=key)
    assert list(open_store(s3_bucket).list()) == ["prefix/k"]


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_refused_at_once(
    s3_bucket: str, wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(wrong, "wrong")
    store = open_store(s3_bucket)
    for name, call in every_call(store, tmp_path):
        with pytest.raises(AccessError, match=rf"{s3_bucket}.*refuses us.*Check AWS_ACCESS_KEY_ID") as caught:
            call()
        assert caught.value.exit_code == 2, name


def test_no_credentials_are_told(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(AccessError, match=r"Unable to locate credentials.*AWS_ACCESS_KEY_ID"):
        open_store(s3_bucket).probe()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", "nonsense"),
        ("AWS_ENDPOINT_URL", "ftp://nowhere"),
        ("AWS_REGION", "no region"),
        ("AWS_PROFILE", "nobody"),
        ("AWS_CA_BUNDLE", "/no/such/file"),
    ],
)
def test_settings_that_make_no_client_are_told_at_once(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(AccessError, match=rf"the AWS settings cannot be used .*{value}.*Check .*{name}"):
        open_store(s3_bucket).probe()


def test_a_missing_bucket_is_told_by_every_call(s3_bucket: str, tmp_path: Path) -> None:
    url = f"{s3_bucket}-not/prefix"
    for name, call in every_call(open_store(url), tmp_path):
        with pytest.raises(AccessError, match=rf"{url}.*no such bucket.*Create the bucket"):
            call()
        assert name


def test_rights_that_are_not_enough_are_told_by_the_probe(
    s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(s3_bucket).put("k", b"1")
    s3_server.admin("create-user", "--access", "reader", "--secret", "reader-secret", "--role", "user")
    policy = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "reader",'
        ' "Action": ["s3:GetObject", "s3:ListBucket"],'
        f' "Resource": ["arn:aws:s3:::{s3_bucket[5:]}", "arn:aws:s3:::{s3_bucket[5:]}/*"]}}]}}'
    )
    s3_server.client.put_bucket_policy(Bucket=s3_bucket[5:], Policy=policy)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "reader-secret")
    store = open_store(s3_bucket)
    store.probe(write=False)
    assert store.read("k") == b"1"
    with pytest.raises(AccessError, match=r"AccessDenied.*Grant these credentials"):
        store.probe()


@pytest.mark.parametrize("deadline", [0.5, 2.0])
def test_a_server_that_never_answers_ends_at_the_deadline(
    s3_bucket: str, proxy: FaultyProxy, deadline: float, tmp_path: Path
) -> None:
    proxy.next_connections(*["stall"] * 100)
    store = open_store(s3_bucket, deadline=deadline)
    for name, call in every_call(store, tmp_path)[: 12 if deadline < 1 else 1]:
        start = time.monotonic()
        with pytest.raises(StoreError, match=rf"no success within {deadline:g} s.*no answer.*AWS_ENDPOINT_URL"):
            call()
        assert deadline <= time.monotonic() - start < deadline + SLACK, name


def test_a_dead_endpoint_ends_at_the_deadline(s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    start, before = time.monotonic(), TALLY.given_up
    with pytest.raises(StoreError, match=r"no success within 3 s.*Could not connect.*Check the network") as caught:
        open_store(s3_bucket, deadline=3).probe()
    assert time.monotonic() - start < 3 + SLACK
    assert caught.value.exit_code == 1
    assert TALLY.given_up == before + 1


def test_broken_connections_are_tried_again(
    s3_bucket: str, proxy: FaultyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.next_connections("refuse", "swallow", "swallow", "refuse", "swallow")
    store, before = open_store(s3_bucket, deadline=30), TALLY.retries.total()
    with caplog.at_level(logging.WARNING, "kubesae.store"):
        store.put("k", b"1")
    assert store.read("k") == b"1"
    assert proxy.seen >= 6
    retries = [record.message for record in caplog.records if record.name.startswith("kubesae.store")]
    assert retries  # the HTTP client repeats some of these itself
    assert all(f"{s3_bucket}/k: " in line and "trying again in" in line for line in retries)
    assert TALLY.retries.total() - before == len(retries)


def test_a_silent_connection_leaves_time_for_another(s3_bucket: str, proxy: FaultyProxy) -> None:
    proxy.next_connections("stall")
    assert open_store(s3_bucket, deadline=6).create("k", b"1")


def test_a_create_whose_answer_is_lost_finds_its_own_object(s3_bucket: str, proxy: FaultyProxy) -> None:
    proxy.next_connections("swallow")
    store = open_store(s3_bucket, deadline=30)
    assert not store.create("k", b"ours")
    assert store.read("k") == b"ours"


def test_an_upload_cut_off_by_its_deadline_is_aborted(s3_server: S3Server, s3_bucket: str, proxy: FaultyProxy) -> None:
    store = open_store(s3_bucket, deadline=4)
    store.put("warm", b"")  # a first connection that works
    proxy.next_connections(*["stall-late"] * 12)
    with pytest.raises(StoreError, match="no success within 4 s"):
        store.put("large", bytes(96 << 20))
    assert not s3_server.client.list_multipart_uploads(Bucket=s3_bucket[5:]).get("Uploads")
    with pytest.raises(MissingError):
        open_store(s3_bucket, deadline=30).size("large")


def test_a_refused_create_of_many_parts_leaves_no_upload(s3_server: S3Server, s3_bucket: str) -> None:
    store = open_store(s3_bucket)
    store.put("k", b"there")
    assert not store.create("k", bytes((64 << 20) + 1))
    assert store.read("k") == b"there"
    assert not s3_server.client.list_multipart_uploads(Bucket=s3_bucket[5:]).get("Uploads")


def test_an_upload_ended_by_somebody_is_started_again(s3_server: S3Server, s3_bucket: str, proxy: FaultyProxy) -> None:
    """As `kubesae gc` or a bucket's lifecycle rule may do to an upload that takes long."""
    data = os.urandom(1 << 20) * 96
    store = open_store(s3_bucket, deadline=60)
    store.put("warm", b"")
    proxy.next_connections("stall-late")  # holds one part back while the upload is ended
    ended = threading.Event()

    def end_upload() -> None:
        client, bucket = s3_server.client, s3_bucket[5:]
        while not (uploads := client.list_multipart_uploads(Bucket=bucket).get("Uploads")):
            time.sleep(0.05)
        client.abort_multipart_upload(Bucket=bucket, Key="large", UploadId=uploads[0]["UploadId"])
        ended.set()

    thread = threading.Thread(target=end_upload)
    thread.start()
    store.put("large", data)
    thread.join(30)
    assert ended.is_set()
    assert store.read("large") == data


def test_renewed_credentials_are_taken_up(
    s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(s3_connection, "REFRESH_INTERVAL", 0.5)
    credentials = tmp_path / "credentials"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))

    def use(user: str) -> None:
        s3_server.admin("create-user", "--access", user, "--secret", f"{user}-secret", "--role", "admin")
        credentials.write_text(f"[default]\naws_access_key_id = {user}\naws_secret_access_key = {user}-secret\n")

    use("worker-1")
    store = open_store(s3_bucket, deadline=3)
    store.put("k", b"1")
    s3_server.admin("delete-user", "--access", "worker-1")
    with pytest.raises(Interrupted, match=r"worked before are refused.*Renew them and start again") as caught:
        store.put("k", b"2")
    assert caught.value.exit_code == 75
    # Other settings make another connection: as if by a process that starts now.
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", "second")
    with pytest.raises(AccessError):
        open_store(s3_bucket).put("k", b"3")
    use("worker-2")
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", "third")
    patient = open_store(s3_bucket, deadline=30)
    patient.put("k", b"4")
    s3_server.admin("delete-user", "--access", "worker-2")
    renewal = threading.Timer(1, use, ["worker-3"])
    renewal.start()
    patient.put("k", b"5")
    renewal.join()
    assert patient.read("k") == b"5"
    assert store.read("k") == b"5"


def test_an_attempt_cut_off_by_the_deadline_does_not_hide_what_failed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else credentials that stay expired would end as a fault of the network (1) instead of with 75."""
    monkeypatch.setattr(s3_connection, "FIRST_PAUSE", 0.01)
    connection = s3_connection.S3Connection()
    connection.has_worked = True
    connection._wires[os.getpid(), "bucket"] = SimpleNamespace(opened=time.monotonic())
    late = iter([0.7])

    def attempt(_wire: object, end: float) -> None:
        for seconds in late:
            time.sleep(seconds)
            raise S3Failure(Kind.CREDENTIALS, "ExpiredToken")
        time.sleep(max(0.0, end - time.monotonic()))
        raise TimeoutError

    with pytest.raises(Interrupted, match="ExpiredToken"):
        s3_connection.S3Call(connection, "s3://bucket/k", 0.9).transfer("bucket", attempt)


def test_a_signal_ends_a_call(s3_bucket: str, proxy: FaultyProxy) -> None:
    """What a signal handler raises comes through at once, whatever the deadline."""

    def stop(*_: object) -> None:
        raise Interrupted("stop")

    proxy.next_connections(*["stall"] * 10)
    gc.collect()
    gc.disable()  # what is raised in a finalizer of what other tests left is lost
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    start = time.monotonic()
    try:
        with pytest.raises(Interrupted):
            open_store(s3_bucket).read("k")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert time.monotonic() - start < 0.5 + SLACK
