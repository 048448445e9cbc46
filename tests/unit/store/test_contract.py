"""What every store promises, on each backend: a folder, and a real S3 server."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from kubesae.errors import ConfigError, DamagedError, MissingError
from kubesae.store import Store, open_store
from open_uploads import begin_upload

if TYPE_CHECKING:
    from pathlib import Path

BAD_KEYS = ["", "/a", "a/", "a//b", "..", "a/../b", ".hidden", "a/.b", "a\\b", "a\nb", "a\x00b", "\udce4", "x" * 201]
# More than two parts of 32 MiB: what S3 takes in one request ends here.
MULTIPART_BYTES = (64 << 20) + 1


def test_an_object_is_read_as_it_was_written(store: Store) -> None:
    for data in (b"", b"x", bytearray(b"abc"), memoryview(b"hello")[1:4]):
        store.put("a/b.bin", data)
        assert store.read("a/b.bin") == bytes(data)
        assert store.size("a/b.bin") == len(data)
        assert store.exists("a/b.bin")


def test_data_of_wider_items_is_written_as_its_bytes(store: Store) -> None:
    store.put("words", memoryview(bytearray(8)).cast("I"))
    assert store.size("words") == 8


def test_keys_may_hold_what_people_write(store: Store) -> None:
    keys = sorted(["über/naïve key+1%20 (2)=&?#.json", "a.b/c..d", "Z", "a-b", "a_b", "a/b", "\U0001f642"])
    for key in keys:
        store.put(key, key.encode())
    assert list(store.list()) == keys
    assert [store.read(key).decode() for key in keys] == keys


def test_put_replaces_and_create_does_not(store: Store) -> None:
    assert store.create("k", b"first")
    assert not store.create("k", b"second")
    assert store.read("k") == b"first"
    store.put("k", b"third")
    assert store.read("k") == b"third"
    store.delete("k")
    assert store.create("k", b"fourth")


def test_of_many_creators_one_wins(store: Store) -> None:
    creators = 24
    start = threading.Barrier(creators)

    def create(number: int) -> bool:
        start.wait()
        return store.create("race/record.json", str(number).encode() * 1000)

    with ThreadPoolExecutor(creators) as pool:
        won = list(pool.map(create, range(creators)))
    assert sum(won) == 1
    assert store.read("race/record.json") == str(won.index(True)).encode() * 1000
    assert list(store.list()) == ["race/record.json"]


def test_readers_of_a_replaced_object_see_one_version(store: Store) -> None:
    versions = [bytes([n]) * 100_000 for n in range(8)]
    store.put("k", versions[0])
    done = threading.Event()

    def read() -> set[bytes]:
        seen = set()
        while not done.is_set():
            seen.add(store.read("k"))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for data in versions:
            store.put("k", data)
        done.set()
        assert set.union(*(reader.result() for reader in readers)) <= set(versions)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 4), (3, 7), (None, 3), (7, None), (9, 100), (10, 12), (50, 60), (4, 4)]
)
def test_ranges_are_slices(store: Store, start: int | None, stop: int | None) -> None:
    store.put("k", b"0123456789")
    assert store.read("k", start, stop) == b"0123456789"[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (None, -1), (3, 2)])
def test_what_is_no_range_is_refused(store: Store, start: int | None, stop: int | None) -> None:
    store.put("k", b"0123456789")
    with pytest.raises(ValueError, match="not a byte range"):
        store.read("k", start, stop)


def test_ranges_of_an_empty_object_are_empty(store: Store) -> None:
    store.put("empty", b"")
    assert store.read("empty", 0, 10) == store.read("empty", 5) == b""
    store.read_into("empty", 0, memoryview(bytearray()))


def test_read_into_fills_a_buffer(store: Store) -> None:
    data = os.urandom(300_000)
    store.put("k", data)
    buffer = bytearray(200_000)
    store.read_into("k", 100_000, memoryview(buffer))
    assert buffer == data[100_000:]
    words = memoryview(bytearray(16)).cast("I")
    store.read_into("k", 8, words)
    assert words.tobytes() == data[8:24]


@pytest.mark.parametrize("start", [0, 5, 10, 11, 1000])
def test_an_object_that_ends_too_early_is_damaged(store: Store, start: int) -> None:
    store.put("short.tar", b"0123456789")
    with pytest.raises(DamagedError, match=r"short\.tar ends \d+ bytes too early.*delete it"):
        store.read_into("short.tar", start, memoryview(bytearray(11)))


def test_a_missing_object_is_named(store: Store, tmp_path: Path) -> None:
    store.put("there/a", b"1")
    for key in ("nothing", "there", "there/a/b", "there/b"):
        for method in (store.read, store.size):
            with pytest.raises(MissingError, match=f"no object {store.url}/{key}"):
                method(key)
        with pytest.raises(MissingError):
            store.read(key, 2, 2)
        with pytest.raises(MissingError):
            store.read_into(key, 0, memoryview(bytearray(1)))
        with pytest.raises(MissingError):
            store.read_into(key, 0, memoryview(bytearray()))
        with pytest.raises(MissingError):
            store.get_file(key, tmp_path / "file")
        assert not store.exists(key)
    assert not (tmp_path / "file").exists()


def test_delete_removes_one_object_and_forgives_its_absence(store: Store) -> None:
    store.put("a/b", b"1")
    store.put("a/c", b"2")
    for key in ("a/b", "a/b", "a", "never/was"):
        store.delete(key)
    assert list(store.list()) == ["a/c"]


def test_a_listing_is_sorted_complete_and_tells_size_and_time(store: Store) -> None:
    assert store.list() == {}
    before = datetime.now(UTC) - timedelta(seconds=2)
    for key in ("b", "a/2", "a-1", "a/10", "a/1/x", "A"):
        store.put(key, key.encode())
    found = store.list()
    assert list(found) == ["A", "a-1", "a/1/x", "a/10", "a/2", "b"]
    assert all(info.size == len(key) for key, info in found.items())
    assert all(before <= info.modified <= datetime.now(UTC) + timedelta(seconds=2) for info in found.values())
    assert all(info.modified.tzinfo is UTC for info in found.values())


@pytest.mark.parametrize(
    ("prefix", "after", "expected"),
    [
        ("a/", None, ["a/1", "a/2", "a/b/3"]),
        ("a", None, ["a/1", "a/2", "a/b/3", "ab"]),
        ("a/b/", None, ["a/b/3"]),
        ("a/b", None, ["a/b/3"]),
        ("a/2", None, ["a/2"]),
        ("nothing/", None, []),
        ("a/2/", None, []),
        ("/", None, []),
        ("a//", None, []),
        ("", "a/2", ["a/b/3", "ab", "c"]),
        ("a/", "a/1", ["a/2", "a/b/3"]),
        ("a/", "a/1x", ["a/2", "a/b/3"]),
        ("a/", "a/zzz", []),
        ("", "zzz", []),
    ],
)
def test_a_listing_by_prefix_and_start(store: Store, prefix: str, after: str | None, expected: list[str]) -> None:
    for key in ("a/1", "a/2", "a/b/3", "ab", "c"):
        store.put(key, b"")
    assert list(store.list(prefix, after=after)) == expected


def test_a_listing_of_more_than_one_page(store: Store) -> None:
    keys = [f"ledger/shard-{n % 7:04d}/part-{n:06d}.json" for n in range(1203)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.put(key, b"{}"), keys))
    assert list(store.list("ledger/")) == sorted(keys)
    middle = sorted(keys)[150]
    assert list(store.list("ledger/", after=middle)) == [key for key in sorted(keys) if key > middle]


def test_files_go_in_and_come_out(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "folder" / "target"
    for data in (b"", os.urandom(100_000)):
        source.write_bytes(data)
        store.put_file("files/f", source)
        store.get_file("files/f", target)
        assert target.read_bytes() == data
    assert list(target.parent.iterdir()) == [target]


def test_large_objects(store: Store, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * (MULTIPART_BYTES >> 20) + b"x"
    assert len(data) == MULTIPART_BYTES
    assert store.create("large", data)
    assert store.size("large") == MULTIPART_BYTES
    assert store.read("large", MULTIPART_BYTES - 5) == data[-5:]
    buffer = bytearray(MULTIPART_BYTES)
    store.read_into("large", 0, memoryview(buffer))
    assert buffer == data
    assert not store.create("large", bytes(MULTIPART_BYTES))
    store.get_file("large", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == data
    (tmp_path / "file").write_bytes(data[::-1])
    store.put_file("large", tmp_path / "file")
    assert store.read("large") == data[::-1]


def test_open_uploads_are_listed_and_ended(store: Store, request: pytest.FixtureRequest) -> None:
    assert store.open_uploads() == []
    before = datetime.now(UTC) - timedelta(seconds=2)
    store.put("a/whole", b"1")
    for key in ("a/one", "a/b/two", "c/three"):
        begin_upload(request, store, key, b"x" * 1000)
    found = store.open_uploads()
    assert len(found) == 3
    assert found == sorted(found, key=lambda upload: upload.key)
    assert [upload.size for upload in found] == [1000] * 3
    assert all(before <= upload.started <= datetime.now(UTC) + timedelta(seconds=2) for upload in found)
    assert all(upload.started.tzinfo is UTC for upload in found)
    assert {upload.key.rpartition("/")[0] for upload in store.open_uploads("a/")} == {"a", "a/b"}
    assert store.child("c").open_uploads()[0].size == 1000
    store.abort_upload(found[0])
    store.abort_upload(found[0])
    assert store.open_uploads() == found[1:]
    for upload in found[1:]:
        store.abort_upload(upload)
    assert store.open_uploads() == []
    assert list(store.list()) == ["a/whole"]


def test_the_stores_clock_is_that_of_its_listings(store: Store) -> None:
    store.put("a", b"1")
    now = store.now()
    store.put("b", b"1")
    found = store.list()
    assert list(found) == ["a", "b"]
    assert found["a"].modified <= now <= found["b"].modified


@pytest.mark.parametrize("key", BAD_KEYS)
def test_what_is_no_key_is_refused(store: Store, key: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    calls = [
        lambda: store.read(key),
        lambda: store.read_into(key, 0, memoryview(bytearray(1))),
        lambda: store.size(key),
        lambda: store.exists(key),
        lambda: store.put(key, b""),
        lambda: store.create(key, b""),
        lambda: store.put_file(key, tmp_path / "file"),
        lambda: store.get_file(key, tmp_path / "other"),
        lambda: store.delete(key),
        lambda: store.child(key),
        lambda: store.url_of(key),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="is not a key of a store"):
            call()


def test_a_child_is_the_same_store_one_prefix_down(store: Store) -> None:
    child = store.child("sae/one")
    assert child.url == f"{store.url}/sae/one"
    child.put("config.json", b"{}")
    assert store.read("sae/one/config.json") == b"{}"
    assert list(child.list()) == list(store.child("sae").child("one").list()) == ["config.json"]
    store.put("sae/one-more", b"")
    assert list(child.list()) == ["config.json"]
    assert child.url_of("config.json") == f"{store.url}/sae/one/config.json"


def test_a_probe_leaves_nothing(store: Store) -> None:
    store.put("a", b"1")
    store.probe()
    store.probe(write=False)
    assert list(store.list()) == ["a"]


def test_a_store_is_opened_again_by_its_url(store: Store) -> None:
    store.put("a", b"1")
    again = open_store(store.url)
    assert again.url == store.url
    assert again.read("a") == open_store(f"{store.url}/").read("a") == b"1"
    assert repr(again).endswith(f"({store.url!r})")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")  # that it works is the point
def test_a_store_used_before_a_fork_works_after_it(store: Store) -> None:
    store.put("a", b"before")
    child = os.fork()
    if child == 0:  # nothing of pytest may run here, so no assertion, and no way out but this one
        code = 1
        try:
            store.put("b", store.read("a") + b" and after")
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.read("b") == b"before and after"
