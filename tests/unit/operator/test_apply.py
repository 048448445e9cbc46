"""What is written to the API: fields and nothing else, at most so often, whatever the server answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Counter

from fake_api import EVENTS, JOBS, SAEX, TRAIN_JOBS, Fault
from fake_clock import Clock
from kubesae_operator import apply as module
from kubesae_operator.api import Actions, Event, JobPatch
from kubesae_operator.apply import NOTE_BYTES, PATCHED_SECONDS, STATUS_SECONDS, Applier
from kubesae_operator.client import ApiError, Unanswered
from observed import NAMESPACE, experiment, job

STATUS = {"phase": "Pending", "conditions": []}


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def writes():
    return Counter("writes", "writes", ["kind"], registry=CollectorRegistry())


@pytest.fixture
def applier(api, clock, writes):
    return Applier(api, "replica-1", writes)


@pytest.fixture
def stored(server):
    """Give the experiment of the tests, as it lies in the API."""
    about = experiment()
    server.put(
        *SAEX, {"metadata": {"namespace": NAMESPACE, "name": "exp", "uid": about.uid}, "spec": {"suspend": False}}
    )
    return about


def put_job(server, item, **spec):
    kind = TRAIN_JOBS if item.kind == "PyTorchJob" else JOBS
    labels = {"kubesae.dev/experiment": "exp", **({"kueue.x-k8s.io/queue-name": item.queue} if item.queue else {})}
    meta = {"namespace": NAMESPACE, "name": item.key[1], "uid": item.uid, "labels": labels}
    server.put(*kind, {"metadata": meta, "spec": spec})
    return lambda: server.get(*kind, *item.key)


def events(server):
    return [item for (kind, _, _), item in server.objects.items() if kind == EVENTS]


def test_a_job_is_released_in_its_own_field_and_nothing_else_is_sent(server, applier, stored):
    plain, train = job("prepare"), job("train")
    read_plain = put_job(server, plain, suspend=True, parallelism=4)
    read_train = put_job(server, train, runPolicy={"suspend": True, "cleanPodPolicy": "Running"})
    actions = Actions((JobPatch(plain, suspend=False), JobPatch(train, suspend=False)), STATUS)
    assert applier.apply(stored, actions) == PATCHED_SECONDS
    assert read_plain()["spec"] == {"suspend": False, "parallelism": 4}
    assert read_train()["spec"] == {"runPolicy": {"suspend": False, "cleanPodPolicy": "Running"}}
    assert [body for _, body in server.bodies] == [
        {"metadata": {"uid": plain.uid}, "spec": {"suspend": False}},
        {"metadata": {"uid": train.uid}, "spec": {"runPolicy": {"suspend": False}}},
    ]
    assert "status" not in server.get(*SAEX, NAMESPACE, "exp")  # that is of what comes of it


def test_a_job_is_given_to_its_queue_and_taken_from_it(server, applier, stored):
    item = job("prepare")
    read = put_job(server, item, suspend=True)
    applier.apply(stored, Actions((JobPatch(item, queue="q"),)))
    assert read()["metadata"]["labels"] == {"kubesae.dev/experiment": "exp", "kueue.x-k8s.io/queue-name": "q"}
    assert read()["spec"] == {"suspend": True}
    applier.apply(stored, Actions((JobPatch(item, suspend=True, queue=""),)))
    assert read()["metadata"]["labels"] == {"kubesae.dev/experiment": "exp"}


def test_a_change_that_somebody_undoes_is_not_made_again_at_once(server, applier, stored, clock):
    item = job("prepare")
    put_job(server, item, suspend=True)
    start, stop = Actions((JobPatch(item, suspend=False),)), Actions((JobPatch(item, suspend=True),))
    assert applier.apply(stored, start) == PATCHED_SECONDS
    assert applier.apply(stored, start) == 0
    assert applier.apply(stored, stop) == PATCHED_SECONDS
    assert applier.apply(stored, start) == PATCHED_SECONDS  # the last one was another
    assert server.count("PATCH .*jobs") == 3
    clock.now += STATUS_SECONDS
    assert applier.apply(stored, start) == PATCHED_SECONDS
    assert server.count("PATCH .*jobs") == 4


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "another one of that name"])
def test_a_job_that_is_not_there_any_more_is_no_error(server, applier, stored, gone):
    item = job("prepare")
    if not gone:
        put_job(server, replace(item, uid="another"), suspend=True)
    assert applier.apply(stored, Actions((JobPatch(item, suspend=False),))) == PATCHED_SECONDS
    if not gone:
        assert server.get(*JOBS, *item.key)["spec"] == {"suspend": True}


def test_a_job_that_may_not_be_changed_stops_neither_the_others_nor_the_status(server, applier, stored):
    refused, taken = job("prepare"), job("pilot")
    read = put_job(server, taken, suspend=True)
    put_job(server, refused, suspend=True)
    server.next("PATCH .*prepare", Fault(status=403))
    with pytest.raises(ApiError, match="HTTP 403"):
        applier.apply(stored, Actions((JobPatch(refused, suspend=False), JobPatch(taken, suspend=False)), STATUS))
    assert read()["spec"] == {"suspend": False}
    assert server.get(*SAEX, NAMESPACE, "exp")["status"] == STATUS


def test_the_status_is_applied_as_a_whole_and_the_rest_left_alone(server, applier, stored):
    assert applier.apply(stored, Actions(status=STATUS)) == 0
    written = server.get(*SAEX, NAMESPACE, "exp")
    assert (written["status"], written["spec"]) == (STATUS, {"suspend": False})
    (request,) = server.requests
    assert request == (
        "PATCH /apis/kubesae.dev/v1alpha1/namespaces/research/saeexperiments/exp/status"
        "?fieldManager=kubesae-operator&force=true"
    )
    assert server.bodies[0][1].keys() == {"apiVersion", "kind", "metadata", "status"}
    assert server.bodies[0][1]["metadata"] == {"name": "exp", "namespace": NAMESPACE, "uid": stored.uid}


def test_nothing_to_do_is_nothing_asked(server, applier, stored):
    assert applier.apply(stored, Actions()) == 0
    assert server.requests == []


def test_one_status_is_written_at_most_every_fifteen_seconds(server, applier, stored, clock):
    waits = []
    for second in range(61):
        waits.append(applier.apply(stored, Actions(status={**STATUS, "tokens": second})))
        clock.now += 1
    assert server.count("PATCH .*status") == 5
    assert waits[:4] == [0, 14, 13, 12]
    another = experiment(key=(NAMESPACE, "another"))
    applier.apply(another, Actions(status=STATUS))
    assert server.count("PATCH .*another/status") == 1  # each for itself
    applier.forget(stored.key)
    assert applier.apply(stored, Actions(status=STATUS)) == 0


def test_events_are_told_with_the_status_that_they_belong_to(server, applier, stored, clock):
    told = (Event("PhaseStarted", "prepare has started."), Event("JobFailed", "Mend it.", warning=True))
    applier.apply(stored, Actions(status=STATUS, events=told))
    assert applier.apply(stored, Actions(status=STATUS, events=told)) > 0  # neither is due
    started, failed = sorted(events(server), key=lambda item: item["reason"], reverse=True)
    assert (started["reason"], started["note"], started["type"]) == ("PhaseStarted", "prepare has started.", "Normal")
    assert (failed["reason"], failed["note"], failed["type"]) == ("JobFailed", "Mend it.", "Warning")
    assert failed["regarding"] == {
        "apiVersion": "kubesae.dev/v1alpha1",
        "kind": "SAEExperiment",
        "namespace": NAMESPACE,
        "name": "exp",
        "uid": stored.uid,
    }
    assert failed["reportingInstance"] == "replica-1"
    assert failed["metadata"]["name"].startswith("exp.")


def test_what_is_told_twice_in_a_minute_is_one_event(server, applier, stored, clock):
    told = Actions(status=STATUS, events=(Event("JobFailed", "Mend it.", warning=True),) * 2)
    applier.apply(stored, told)
    assert len(events(server)) == 1


def test_a_note_is_not_longer_than_the_api_takes(server, applier, stored):
    applier.apply(stored, Actions(status=STATUS, events=(Event("JobFailed", "ü" * 2000),)))
    note = events(server)[0]["note"]
    assert set(note) == {"ü"}
    assert len(note.encode()) == NOTE_BYTES


@pytest.mark.parametrize("fault", [Fault(status=403), Fault(status=500), Fault(drop=True)], ids=str)
def test_an_event_that_cannot_be_told_hinders_nothing(server, applier, stored, caplog, fault):
    server.next("POST .*events", fault)
    told = (Event("PhaseStarted", "one"), Event("PhaseStarted", "two"))
    assert applier.apply(stored, Actions(status=STATUS, events=told)) == 0
    assert [item["note"] for item in events(server)] == ["two"]
    assert "event PhaseStarted of research/exp was refused" in caplog.text


@pytest.mark.parametrize("status", [404, 409])
def test_an_experiment_that_is_gone_or_another_one_is_no_error(server, applier, stored, status):
    server.next("PATCH .*status", Fault(status=status))
    assert applier.apply(stored, Actions(status=STATUS)) == 0


@pytest.mark.parametrize(("fault", "error"), [(Fault(status=403), ApiError), (Fault(drop=True), Unanswered)], ids=str)
def test_a_status_that_is_refused_is_an_error_and_tells_nothing(server, applier, stored, fault, error):
    server.next("PATCH .*status", fault)
    with pytest.raises(error):
        applier.apply(stored, Actions(status=STATUS, events=(Event("PhaseStarted", "x"),)))
    assert events(server) == []


def test_writes_are_counted_by_kind(server, applier, stored, writes):
    item = job("prepare")
    put_job(server, item, suspend=True)
    applier.apply(stored, Actions((JobPatch(item, suspend=False),)))
    applier.apply(stored, Actions(status=STATUS, events=(Event("PhaseStarted", "x"),)))
    counted = {
        sample.labels["kind"]: sample.value for sample in writes.collect()[0].samples if sample.name == "writes_total"
    }
    assert counted == {"job": 1, "status": 1, "event": 1}
