"""What only a store in a folder does: paths, temporary files, what a disk's errors become."""

from __future__ import annotations

import errno
import os
import resource
import signal
from pathlib import Path

import pytest

from kubesae.errors import AccessError, ConfigError, StoreError
from kubesae.store import open_store
from kubesae.store.disk import disk_errors, new_file


def test_a_store_can_be_given_in_many_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in (
        "out",
        "./out/",
        f"{tmp_path}/x/../out",
        "~/out",
        f"file://{tmp_path}/out",
        f"file://localhost{tmp_path}/out",
    ):
        assert open_store(text).url == f"{tmp_path}/out"
    assert open_store(f"file://{tmp_path}/with%20space").url == f"{tmp_path}/with space"


@pytest.mark.parametrize(
    "url", ["", " out", "out\n", "gs://bucket/x", "http://host/x", "file://host/x", "file://", "s3:/x"]
)
def test_what_is_no_place_for_a_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"folder|scheme"):
        open_store(url)


def test_opening_and_reading_make_no_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "new"))
    assert store.list() == {}
    assert not store.exists("a")
    store.delete("a")
    store.probe(write=False)
    assert not (tmp_path / "new").exists()


def test_foreign_files_are_no_objects(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a/b", b"1")
    (tmp_path / ".hidden").write_bytes(b"")
    (tmp_path / "a" / f".{'0' * 24}.tmp").write_bytes(b"left by a crash")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list(store.list()) == ["a/b"]


def test_no_temporary_file_is_left_nor_seen(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    with new_file(tmp_path / "store" / "k") as file:
        file.write(b"given up")
        assert store.list() == {}
    assert not list((tmp_path / "store").iterdir())
    store.create("k", b"1")
    store.create("k", b"2")
    store.put("k", b"3")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["k"]


def test_a_lost_race_leaves_the_winner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another creator may publish between our look and our own publish."""
    store = open_store(str(tmp_path))
    store.create("k", b"winner")
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    assert not store.create("k", b"loser")
    assert store.read("k") == b"winner"
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_folder_that_cannot_be_written_is_told_by_the_probe(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = open_store(str(tmp_path / "file" / "store"))
    for call in (store.probe, lambda: store.create("k", b""), lambda: store.put("k", b"")):
        with pytest.raises(AccessError, match=rf"{store.url}.*cannot be written.*Choose another folder"):
            call()


def test_a_key_below_another_cannot_be_written(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a", b"")
    with pytest.raises(AccessError, match="a file stands where a folder is needed"):
        store.put("a/b", b"")
    store.put("c/d", b"")
    with pytest.raises(AccessError, match="a folder where a file is"):
        store.put("c", b"")
    with pytest.raises(AccessError, match="a folder where a file is"):
        store.put_file("c", tmp_path / "a")


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOSPC, StoreError, "the disk is full.*Free some space"),
        (errno.EDQUOT, StoreError, "the disk is full.*Free some space"),
        (errno.EACCES, AccessError, r"access refused.*grant this user \(uid \d+\)"),
        (errno.EROFS, AccessError, "access refused"),
        (errno.EIO, StoreError, "the file system failed"),
    ],
)
def test_what_errors_of_a_disk_become(number: int, kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=rf"/data/k: {text}") as caught, disk_errors("/data/k"):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value.__cause__, OSError)


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: it fails a write in the middle, for root too."""
    store = open_store(str(tmp_path))
    store.put("k", b"before")
    with pytest.raises(StoreError, match=r"/k: the file system failed \(File too large\)"):
        _put_with_a_file_size_limit(store.url, "k")
    assert store.read("k") == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def _put_with_a_file_size_limit(url: str, key: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        open_store(url).put(key, bytes(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
