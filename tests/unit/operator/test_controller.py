"""The loop as a whole, over an API server and an S3 server: what changes is acted on, by the one that leads."""

from __future__ import annotations

import base64
import threading
from types import SimpleNamespace

import pytest

from fake_api import EVENTS, JOBS, SAEX, SECRETS, Fault
from kubesae.ledger import keys
from kubesae.store import open_store
from kubesae_operator import apply as applying
from kubesae_operator import controller as module
from kubesae_operator import queue as queueing
from kubesae_operator import reading
from kubesae_operator.controller import Controller
from kubesae_operator.metrics import Metrics
from small_experiment import VALUES


class Turns:
    """What the liveness probe is told."""

    count = 0

    def turned(self):
        self.count += 1


class Operator:
    """A controller with its watches in threads, and an election that the test decides."""

    def __init__(self, server, *, leads=True):
        self.metrics, self.health = Metrics(), Turns()
        self.controller = Controller(server.client(), "", "replica-1", self.metrics)
        self.election = SimpleNamespace(leads=leads)
        self.stop = threading.Event()
        for watch in self.controller.observer.watches:
            threading.Thread(target=watch.run, args=(self.stop,), daemon=True).start()
        self.thread = threading.Thread(target=self.controller.run, args=(self.election, self.health, self.stop))
        self.thread.start()

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"kubesae_{name}", labels)

    def end(self):
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def operators(server, monkeypatch):
    """Give a way to start operators, that are in a hurry."""
    monkeypatch.setattr(module, "TURN_SECONDS", 0.05)
    monkeypatch.setattr(applying, "STATUS_SECONDS", 0.05)
    monkeypatch.setattr(applying, "PATCHED_SECONDS", 0.05)
    monkeypatch.setattr(queueing, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(reading, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(reading, "QUIET_SECONDS", 0.1)
    started = []

    def start(**options):
        started.append(Operator(server, **options))
        return started[-1]

    yield start
    for operator in started:
        operator.end()


@pytest.fixture
def installed(server, s3_server, s3_bucket):
    """Give the store of an experiment that was installed in namespace a, with a Job for each of two phases."""
    data = {"AWS_ACCESS_KEY_ID": s3_server.access, "AWS_SECRET_ACCESS_KEY": s3_server.secret}
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    server.put(*SECRETS, {"metadata": {"namespace": "a", "name": "s3"}, "data": encoded})
    spec = {
        "experiment": VALUES | {"data": f"{s3_bucket}/data"},
        "store": {"secretName": "s3", "endpoint": s3_server.endpoint, "region": "us-east-1"},
        "phases": ["prepare", "pilot"],
    }
    server.put(*SAEX, {"metadata": {"namespace": "a", "name": "exp", "generation": 1}, "spec": spec})
    for phase in ("prepare", "pilot"):
        put_job(server, phase, {"suspend": True})
    return open_store(f"{s3_bucket}/data")


def put_job(server, phase, spec, **status):
    labels = {"kubesae.dev/experiment": "exp", "kubesae.dev/phase": phase}
    server.put(*JOBS, {"metadata": {"namespace": "a", "name": phase, "labels": labels}, "spec": spec, "status": status})


def suspended(server, phase):
    return server.get(*JOBS, "a", phase)["spec"]["suspend"]


def notes(server):
    return {item["note"] for (kind, _, _), item in list(server.objects.items()) if kind == EVENTS}


def status(server):
    return server.get(*SAEX, "a", "exp").get("status", {})


def test_a_phase_is_released_and_the_next_one_when_the_store_shows_it_complete(server, operators, installed, until):
    operator = operators()
    until(lambda: not suspended(server, "prepare"))
    until(lambda: status(server).get("phase") == "Preparing")
    assert suspended(server, "pilot")
    installed.put(keys.TOKENS_MANIFEST, b"{}")
    until(lambda: not suspended(server, "pilot"))
    until(lambda: status(server).get("phase") == "Piloting")
    until(lambda: notes(server) == {"prepare has started.", "prepare is complete.", "pilot has started."})
    until(lambda: operator.value("operator_leads") == 1)
    assert operator.value("api_writes_total", kind="job") == 2
    until(lambda: operator.health.count > 1)


def test_when_nothing_changes_nothing_is_written(server, operators, installed, until):
    operators()
    until(lambda: notes(server) == {"prepare has started."})
    writes = server.count("PATCH|POST|PUT")
    threading.Event().wait(0.4)  # four looks
    assert server.count("PATCH|POST|PUT") == writes


def test_who_does_not_lead_writes_nothing_until_it_does(server, operators, installed, until):
    operator = operators(leads=False)
    until(lambda: operator.controller.observer.synced)
    until(lambda: operator.health.count > 3)
    assert server.count("PATCH|POST|PUT") == 0
    operator.election.leads = True
    operator.controller.wake_all()
    until(lambda: not suspended(server, "prepare"))
    until(lambda: operator.value("phase", namespace="a", experiment="exp", phase="prepare", state="Running") == 1)
    operator.election.leads = False
    until(lambda: operator.value("operator_leads") == 0)
    until(lambda: operator.value("phase", namespace="a", experiment="exp", phase="prepare", state="Running") is None)


def test_who_ceases_to_lead_while_it_looks_writes_nothing(server, operators, installed, until, monkeypatch):
    operator = operators(leads=False)
    look, looks = operator.controller.observer.observe, []

    def long_look(key):
        operator.election.leads = False
        looks.append(key)
        return look(key)

    until(lambda: operator.controller.observer.synced)
    until(lambda: len(operator.controller.observer.jobs.objects) == 2)
    monkeypatch.setattr(operator.controller.observer, "observe", long_look)
    operator.election.leads = True
    operator.controller.wake_all()
    until(lambda: looks and not operator.controller._queue._taken)
    assert server.count("PATCH|POST|PUT") == 0


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=403), Fault(drop=True)], ids=str)
def test_what_is_refused_is_tried_again(server, operators, installed, until, fault):
    server.next("PATCH", fault, fault, fault)
    operator = operators()
    until(lambda: not suspended(server, "prepare"))
    until(lambda: status(server).get("phase") == "Preparing")
    assert operator.value("reconcile_errors_total") >= 2
    assert not server._faults


def test_a_bug_in_one_experiment_stops_no_other(server, operators, installed, until, monkeypatch, caplog):
    decide = module.reconcile

    def stumbling(seen):
        if seen.experiment.key[1] == "bad":
            raise ZeroDivisionError
        return decide(seen)

    monkeypatch.setattr(module, "reconcile", stumbling)
    server.put(*SAEX, {"metadata": {"namespace": "a", "name": "bad"}, "spec": {"experiment": {}}})
    operator = operators()
    until(lambda: not suspended(server, "prepare"))
    until(lambda: operator.value("reconcile_errors_total") >= 2)
    assert "a/bad failed" in caplog.text
    until(lambda: operator.health.count > 2)


def test_of_a_deleted_experiment_nothing_is_left(server, operators, installed, until):
    operator = operators()
    labels = {"namespace": "a", "experiment": "exp"}
    until(lambda: operator.value("store_lists", **labels) is not None)
    server.delete(*SAEX, "a", "exp")
    until(lambda: operator.value("store_lists", **labels) is None)
    assert operator.controller.observer._readings == {}


def test_a_dead_worker_is_seen_by_the_liveness_probe(operators, monkeypatch, until):
    def alive():
        return sum(thread.name.startswith("worker-") for thread in threading.enumerate())

    operator = operators()
    until(lambda: operator.health.count)
    assert alive() == module.WORKERS
    monkeypatch.setattr(operator.controller._queue, "take", lambda: None)
    operator.controller._queue.add(("a", "b"))
    until(lambda: alive() < module.WORKERS)
    turns = operator.health.count
    threading.Event().wait(0.2)
    assert operator.health.count <= turns + 1
