"""A fake API server and the operator's client of it; the same hypothesis examples on every run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from fake_api import FakeApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kubesae_operator.client import Api

settings.register_profile("kubesae", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("kubesae")


@pytest.fixture
def server() -> Iterator[FakeApi]:
    with FakeApi() as server:
        yield server


@pytest.fixture
def api(server: FakeApi) -> Api:
    return server.client()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Give a wait for something that has to happen soon."""

    def wait(happened: Callable[[], object], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.005)

    return wait
