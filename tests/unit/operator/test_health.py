"""What the kubelet is told: dead is who hears nothing or does not turn, ready who has seen everything once."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Gauge

from fake_api import Fault
from fake_clock import Clock
from kubesae_operator import health as module
from kubesae_operator import watch as watching
from kubesae_operator.health import DEAF_SECONDS, STUCK_SECONDS, Health, serve
from kubesae_operator.watch import Watch


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(watching, "time", clock)
    return clock


@pytest.fixture
def watch(api, clock, monkeypatch):
    monkeypatch.setattr(watching, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(watching, "LONGEST_PAUSE", 0.01)
    return Watch(api, "/apis/batch/v1/jobs", {}, lambda item: item, lambda *_: None)


@pytest.fixture
def health(watch):
    registry = CollectorRegistry()
    Gauge("some_number", "a number", registry=registry).set(3)
    return Health([watch], registry)


@pytest.fixture
def ask(health):
    """Give a request to the pages of `health`."""
    server = serve(health, 0)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    yield get
    server.shutdown()
    server.server_close()


@pytest.fixture
def followed(watch):
    stop = threading.Event()
    thread = threading.Thread(target=watch.run, args=(stop,), daemon=True)
    thread.start()
    yield watch
    stop.set()


def test_ready_is_who_has_seen_everything_once(server, health, ask, watch, until):
    assert ask("/readyz") == (503, "/apis/batch/v1/jobs has not been listed yet\n")
    assert ask("/healthz") == (200, "ok\n")
    stop = threading.Event()
    threading.Thread(target=watch.run, args=(stop,), daemon=True).start()
    until(lambda: watch.synced)
    assert ask("/readyz") == (200, "ok\n")
    stop.set()


def test_a_watch_that_hears_nothing_is_dead_and_a_word_revives_it(server, health, ask, followed, clock, until):
    until(lambda: server.watchers)
    clock.now += DEAF_SECONDS + 1
    health.turned()
    status, text = ask("/healthz")
    assert (status, text) == (503, "watch of /apis/batch/v1/jobs: nothing heard for 301 s\n")
    server.bookmark()
    until(lambda: ask("/healthz")[0] == 200)


def test_a_server_that_only_refuses_is_not_heard(server, health, ask, followed, clock, until):
    until(lambda: server.watchers)
    server.next("jobs", *[Fault(status=500)] * 10_000)
    server.end_watches()
    clock.now += DEAF_SECONDS + 1
    health.turned()
    seen = len(server.requests)
    until(lambda: len(server.requests) > seen + 3)
    assert ask("/healthz")[0] == 503


def test_a_loop_that_does_not_turn_is_dead(health, watch, clock):
    clock.now += STUCK_SECONDS + 1
    watch.heard = clock.now
    assert health.complaints() == ["the loop has not turned for 301 s"]
    health.turned()
    assert health.complaints() == []


def test_the_longest_silence_of_a_watch_that_lives_is_no_death():
    assert watching.SILENCE + 2 * watching.LONGEST_PAUSE < DEAF_SECONDS


def test_metrics_and_unknown_pages(ask):
    status, text = ask("/metrics")
    assert status == 200
    assert "some_number 3.0" in text
    assert ask("/other") == (404, "/healthz /readyz /metrics\n")
