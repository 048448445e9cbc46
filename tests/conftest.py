"""Fixtures for all tests: stores in a folder and on a real S3 server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kubesae.store import Store, open_store
from s3_server import S3Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give an S3 server for the whole session."""
    with S3Server.start(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the URL of an empty bucket, and an environment in which every AWS client reaches it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return s3_server.new_bucket()


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give a URL where a store can be, of each backend in turn."""
    if request.param == "local":
        return str(tmp_path / "store")
    return f"{request.getfixturevalue('s3_bucket')}/some/prefix"


@pytest.fixture
def store(store_url: str) -> Store:
    """Give an empty store of each backend in turn."""
    return open_store(store_url, deadline=60)
