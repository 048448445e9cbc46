"""A network that breaks, stalls and lies between the programs and a real S3 server."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from fault_experiment import PARTS, VALUES
from faulty_proxy import FaultyProxy
from toxiproxy import Toxiproxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fault_experiment import Scene
    from fault_workers import Worker
    from s3_server import S3Server

pytestmark = [pytest.mark.fault, pytest.mark.s3]

FAULT, INTERRUPTED = 1, 75
DEADLINE = 6.0
SLACK = 4.0  # seconds beyond a deadline for a busy machine
SETTINGS = {"collect": VALUES["collect"] | {"deadline": DEADLINE}}
PAUSE = 0.05


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture
def network(
    s3_server: S3Server, s3_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Toxiproxy]:
    """Put toxiproxy between the server and all that starts from here on."""
    assert s3_prefix
    with Toxiproxy.start(tmp_path, s3_server.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def start(collect: Scene, pause: float = PAUSE) -> Worker:
    """Start collecting, and return amid a part."""
    worker = collect.start(pause=pause)
    worker.until("after record", 2)
    return worker


def end(collect: Scene, worker: Worker, kind: str) -> list[str]:
    """See the program go on by itself; return in what it differs from an undisturbed run."""
    assert worker.wait() == 0, worker.output
    assert "Traceback" not in worker.output
    collect.faults.count(f"network: {kind}")
    return collect.compare()


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("reset_peer", {"timeout": 0}),
        ("limit_data", {"bytes": 20_000, "upload": True}),
        slow("reset_peer", {"timeout": 0, "upload": True}),
        slow("limit_data", {"bytes": 100}),
        slow("slicer", {"average_size": 64, "size_variation": 32, "delay": 100}),
        slow("latency", {"latency": 80, "jitter": 40}),
        slow("bandwidth", {"rate": 100, "upload": True}),
        slow("slow_close", {"delay": 200}),
    ],
)
def test_a_bad_network_for_a_while(
    scene: Callable[..., Scene], s3_prefix: str, network: Toxiproxy, kind: str, attributes: dict[str, Any]
) -> None:
    collect = scene("collect", s3_prefix, **SETTINGS)
    worker = start(collect)
    assert worker.passages.count("after record") < PARTS
    with network.toxic(kind, **attributes):
        time.sleep(1.5)
    assert end(collect, worker, kind) == []
    if kind in {"reset_peer", "limit_data"}:
        assert "trying again in" in worker.output


@pytest.mark.slow
def test_no_network_for_a_while(scene: Callable[..., Scene], s3_prefix: str, network: Toxiproxy) -> None:
    collect = scene("collect", s3_prefix, **SETTINGS)
    worker = start(collect)
    with network.down():
        time.sleep(2)
    assert end(collect, worker, "down for a while") == []


@pytest.mark.parametrize("strikes", ["answers", *map(slow, ("requests", "answers amid a tar", "requests amid a tar"))])
def test_a_silent_network_ends_within_the_deadline_and_the_work_goes_on(
    scene: Callable[..., Scene], s3_prefix: str, network: Toxiproxy, strikes: str
) -> None:
    """Established sockets on which nothing comes any more, at rest or amid the bytes of a tar."""
    upload, amid = strikes.startswith("requests"), strikes.endswith("amid a tar")
    collect = scene("collect", s3_prefix, **SETTINGS)
    if amid:
        with network.toxic("bandwidth", upload=True, rate=80):
            worker = start(collect, 0)
            tars = worker.passages.count("before tar of layer 1")
            worker.until("before tar of layer 1", tars + 1)
            time.sleep(0.3)  # of about 1 s that a tar takes now
            began = _fall_silent(network, worker, upload=upload)
    else:
        worker = start(collect)
        began = _fall_silent(network, worker, upload=upload)
    assert began <= DEADLINE + SLACK
    assert f"no success within {DEADLINE:g} s" in worker.output
    assert "Check the network" in worker.output
    collect.faults.count("network: silent until the deadline")
    assert collect.in_progress
    collect.finish()
    assert collect.compare() == []


def _fall_silent(network: Toxiproxy, worker: Worker, *, upload: bool) -> float:
    """Let nothing pass until the worker ends; return after how many seconds it did."""
    with network.toxic("timeout", timeout=0, upload=upload):
        began = time.monotonic()
        assert worker.wait() == FAULT, worker.output
        return time.monotonic() - began


@pytest.mark.slow
def test_a_silent_network_for_a_while(scene: Callable[..., Scene], s3_prefix: str, network: Toxiproxy) -> None:
    collect = scene("collect", s3_prefix, **SETTINGS)
    worker = start(collect)
    with network.toxic("timeout", timeout=0):
        time.sleep(DEADLINE / 2)
    assert end(collect, worker, "silent for a while") == []


def test_dead_connections_are_given_up_for_new_ones(
    scene: Callable[..., Scene], s3_server: S3Server, s3_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a router does that forgets its connections: they stay established and dead, new ones work."""
    with FaultyProxy(int(s3_server.endpoint.rpartition(":")[2])) as proxy:
        collect = scene("collect", s3_prefix, **SETTINGS)
        with monkeypatch.context() as here:
            here.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
            worker = start(collect)
        proxy.silence()
        began = time.monotonic()
        assert end(collect, worker, "dead connections") == []
        assert time.monotonic() - began < 2 * DEADLINE  # of which one attempt, a third of it, is lost
        assert "trying again in" in worker.output


@pytest.mark.slow
def test_sigterm_while_nothing_passes(scene: Callable[..., Scene], s3_prefix: str, network: Toxiproxy) -> None:
    collect = scene("collect", s3_prefix, collect=VALUES["collect"] | {"deadline": 60})
    worker = start(collect)
    with network.toxic("timeout", timeout=0):
        time.sleep(1)
        began = time.monotonic()
        os.kill(worker.pid, signal.SIGTERM)
        assert worker.wait() == INTERRUPTED, worker.output
        assert time.monotonic() - began < 10
    collect.faults.count("network: SIGTERM while silent")
    assert collect.in_progress
    collect.finish()
    assert collect.compare() == []
