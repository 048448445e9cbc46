"""The client against a real server: a real model's answer, and every way in which an endpoint fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chat_server import ChatServer, Fault, TinyModel
from kubesae.errors import AccessError, ConfigError, KubesaeError
from kubesae.interpret.explain import Endpoint
from kubesae.interpret.explain.endpoint import ATTEMPTS, LONGEST_PAUSE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HELLO = [{"role": "user", "content": "hello"}]
SECRET = "sk-very-secret"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(lambda messages, _: f"you said {messages[-1]['content']}") as server:
        yield server


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def endpoint(server: ChatServer, pauses: list[float]) -> Endpoint:
    return Endpoint(server.url, "tiny", SECRET, timeout=0.5, pause=pauses.append)


def test_a_real_model_answers(tmp_path: Path) -> None:
    model = TinyModel(tmp_path)
    with ChatServer(model) as server:
        assert Endpoint(server.url, "tiny", timeout=60).complete(HELLO, 8) == model(HELLO, 8)
        ((headers, body),) = server.seen
    assert "Authorization" not in headers
    assert body == {"model": "tiny", "messages": HELLO, "max_tokens": 8, "temperature": 0}


def test_the_key_is_a_header_and_is_never_shown(server: ChatServer, endpoint: Endpoint) -> None:
    assert endpoint.complete(HELLO, 8) == "you said hello"
    assert server.seen[0][0]["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in repr(endpoint)
    for status, kind in ((401, AccessError), (400, ConfigError)):
        server.next(Fault(status, f'{{"error": "not with {SECRET}"}}'))
        with pytest.raises(kind, match=rf"HTTP {status}: .*not with \*\*\*") as error:
            endpoint.complete(HELLO, 8)
        assert SECRET not in str(error.value)
    server.next(*[Fault(200, f"<html>{SECRET}</html>")] * ATTEMPTS)
    with pytest.raises(KubesaeError, match=r"<html>\*\*\*</html>"):
        endpoint.complete(HELLO, 8)


def test_another_host_does_not_get_the_key(server: ChatServer, endpoint: Endpoint) -> None:
    server.next(Fault(302, headers={"Location": f"{server.url}/elsewhere"}))
    with pytest.raises(ConfigError, match="HTTP 404"):
        endpoint.complete(HELLO, 8)
    keys = ["Authorization" in headers for headers, _ in server.seen]
    assert keys == [True, False]


def test_a_key_with_a_line_s_end_is_never_shown() -> None:
    with pytest.raises(ConfigError, match="characters that no key has") as error:
        Endpoint("http://127.0.0.1:9/v1", "tiny", f"{SECRET}\n")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(500),
        Fault(503, "busy"),
        Fault(200, "<html>no JSON</html>"),
        Fault(200, '{"choices": []}'),
        Fault(200, "[]"),
        Fault(503, "cut", headers={"Content-Length": "100"}),
        Fault(silent=True),
    ],
)
def test_what_may_pass_is_tried_again(
    server: ChatServer, endpoint: Endpoint, pauses: list[float], fault: Fault
) -> None:
    server.next(fault, fault)
    assert endpoint.complete(HELLO, 8) == "you said hello"
    assert pauses == [1, 2]


def test_it_waits_as_long_as_it_is_asked_to(server: ChatServer, endpoint: Endpoint, pauses: list[float]) -> None:
    after = ("7", "0.5", "100000", "Wed, 21 Oct 2026 07:28:00 GMT")
    server.next(*(Fault(429, headers={"Retry-After": value}) for value in after))
    assert endpoint.complete(HELLO, 8) == "you said hello"
    assert pauses == [7, 0.5, LONGEST_PAUSE, 8]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(500), r"HTTP 500: .*as the test says"),
        (Fault(429), "HTTP 429"),
        (Fault(200, "<html>\nno JSON</html>"), "an answer that is no chat completion .*<html> no JSON"),
        (Fault(silent=True), "no answer .*timed out"),
    ],
)
def test_what_does_not_pass_is_said(server: ChatServer, endpoint: Endpoint, fault: Fault, said: str) -> None:
    server.next(*[fault] * ATTEMPTS)
    with pytest.raises(KubesaeError, match=f"failed {ATTEMPTS} times, at last: {said}") as error:
        endpoint.complete(HELLO, 8)
    assert error.value.exit_code == 1
    assert len(server.seen) == ATTEMPTS


@pytest.mark.parametrize(
    ("status", "kind"), [(400, ConfigError), (404, ConfigError), (401, AccessError), (403, AccessError)]
)
def test_what_cannot_pass_is_not_tried_again(server: ChatServer, endpoint: Endpoint, status: int, kind: type) -> None:
    server.next(Fault(status))
    with pytest.raises(kind, match=f"HTTP {status}"):
        endpoint.complete(HELLO, 8)
    assert len(server.seen) == 1


def test_where_nothing_listens(pauses: list[float]) -> None:
    with pytest.raises(KubesaeError, match=r"no answer .*refused"):
        Endpoint("http://127.0.0.1:9/v1", "tiny", pause=pauses.append).complete(HELLO, 8)
    assert len(pauses) == ATTEMPTS - 1


@pytest.mark.parametrize("url", ["localhost:8000", "file:///etc/passwd", "http://", ""])
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigError, match="is no URL"):
        Endpoint(url, "tiny")


def test_no_text_is_an_empty_answer(server: ChatServer, endpoint: Endpoint) -> None:
    server.next(Fault(200, '{"choices": [{"message": {"content": null}}]}'))
    assert endpoint.complete(HELLO, 8) == ""
