"""What is gathered of an experiment: its own Jobs and Pods, who else writes there, and why Pods are refused."""

from __future__ import annotations

import threading

import pytest

from fake_api import CORE_EVENTS, JOBS, PODS, SAEX, TRAIN_JOBS, Fault
from fake_clock import Clock
from kubesae_operator import observe as module
from kubesae_operator.observe import REFUSAL_SECONDS, Observer


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


class Watching:
    """An observer whose watches run, and the keys that it was woken with."""

    def __init__(self, server, namespace=""):
        self.server = server
        self.woken = []
        self.observer = Observer(server.client(), namespace, self.woken.append)
        self.stop = threading.Event()
        for watch in self.observer.watches:
            threading.Thread(target=watch.run, args=(self.stop,), daemon=True).start()

    def see(self, name="exp", namespace="a"):
        return self.observer.observe((namespace, name))[0]


@pytest.fixture
def watching(server, until):
    watching = Watching(server)
    until(lambda: watching.observer.synced and server.watchers == 4)
    yield watching
    watching.stop.set()


def put(server, kind, name, namespace="a", *, labels=None, spec=None, status=None, kind_name="", **meta):
    labels = {"kubesae.dev/experiment": "exp", "kubesae.dev/phase": "collect"} if labels is None else labels
    item = {"metadata": {"namespace": namespace, "name": name, "labels": labels, **meta}, "spec": spec or {}}
    return server.put(*kind, {**item, "kind": kind_name, "status": status or {}})


def put_experiment(
    server, name="exp", namespace="a", data="/data", endpoint="", status=None, created=None, phases=None
):
    spec = {"experiment": {"data": data}, "store": {"endpoint": endpoint}}
    if phases:
        spec["phases"] = phases
    meta = {"creationTimestamp": created} if created else {}
    return put(server, SAEX, name, namespace, labels={}, spec=spec, status=status, **meta)


def test_an_experiment_is_seen_with_its_own_jobs_and_pods(server, watching, until):
    put_experiment(server)
    put(server, JOBS, "exp-collect", spec={"suspend": True})
    put(server, TRAIN_JOBS, "exp-train", kind_name="PyTorchJob")
    put(server, JOBS, "exp-collect", "b")
    put(server, JOBS, "others", labels={"kubesae.dev/experiment": "another"})
    put(server, JOBS, "foreign", labels={})
    put(server, PODS, "exp-collect-0")
    put(server, PODS, "exp-collect-1", "b")
    put(server, PODS, "done", status={"phase": "Succeeded"})
    until(lambda: len(watching.observer.jobs.objects) == 3 and watching.observer.train_jobs.objects)
    until(lambda: len(watching.observer.pods.objects) == 2)
    seen = watching.see()
    assert [(job.kind, job.key) for job in seen.jobs] == [
        ("Job", ("a", "exp-collect")),
        ("PyTorchJob", ("a", "exp-train")),
    ]
    assert [pod.key for pod in seen.pods] == [("a", "exp-collect-0")]
    assert seen.problem.reason == "InvalidExperiment"


def test_every_change_wakes_the_experiment_that_it_is_about(server, watching, until):
    put_experiment(server)
    until(lambda: watching.woken == [("a", "exp")])
    put(server, JOBS, "j")
    put(server, TRAIN_JOBS, "t", kind_name="PyTorchJob")
    put(server, PODS, "p")
    until(lambda: watching.woken == [("a", "exp")] * 4)
    server.delete(*PODS, "a", "p")
    until(lambda: len(watching.woken) == 5)
    put(server, PODS, "q", labels={"kubesae.dev/experiment": "another"})
    until(lambda: watching.woken[5:] == [("a", "another")])
    server.delete(*SAEX, "a", "exp")
    until(lambda: len(watching.woken) == 7)
    assert watching.woken[5:] == [("a", "another"), ("a", "exp")]


def test_a_pod_that_has_succeeded_is_seen_no_more(server, watching, until):
    put(server, PODS, "p", status={"phase": "Running"})
    until(lambda: watching.observer.pods.objects)
    put(server, PODS, "p", status={"phase": "Succeeded"})
    until(lambda: not watching.observer.pods.objects)
    assert server.get(*PODS, "a", "p")["status"]["phase"] == "Succeeded"


def test_of_a_gone_experiment_nothing_is_kept(server, watching, until):
    put_experiment(server)
    until(lambda: watching.observer.experiments.objects)
    watching.see()
    server.delete(*SAEX, "a", "exp")
    until(lambda: not watching.observer.experiments.objects)
    assert watching.observer.observe(("a", "exp")) is None
    assert watching.observer._readings == watching.observer._refusals == {}


def test_one_namespace_alone_is_asked_for_where_that_is_wanted(server, until):
    watching = Watching(server, "a")
    until(lambda: watching.observer.synced)
    assert all("/namespaces/a/" in request for request in server.requests)
    watching.stop.set()


def test_only_labelled_and_unfinished_objects_are_asked_for(server, watching):
    asked = [request for request in server.requests if "watch=1" not in request]
    assert all(
        "labelSelector=kubesae.dev/experiment" in request for request in asked if "saeexperiments" not in request
    )
    assert ["fieldSelector=status.phase!=Succeeded" in request for request in asked if "pods" in request] == [True]


OLD, NEW = "2026-05-01T10:00:00Z", "2026-05-01T11:00:00Z"
COLLECTED = {"conditions": [{"type": "CollectionComplete", "status": "True"}]}


@pytest.mark.parametrize(
    ("other", "rival"),
    [
        ({}, (("b", "other"), True)),
        ({"created": "2026-05-01T12:00:00Z"}, (("b", "other"), False)),
        ({"data": "/data/"}, (("b", "other"), True)),
        ({"data": "/data/below"}, None),
        ({"endpoint": "https://another"}, None),
        ({"status": COLLECTED}, None),
        ({"phases": ["train"]}, None),
    ],
)
def test_another_experiment_that_still_collects_at_the_same_prefix_is_a_rival(server, watching, until, other, rival):
    put_experiment(server, created=NEW)
    put_experiment(server, "other", "b", **{"created": OLD, **other})
    until(lambda: len(watching.observer.experiments.objects) == 2)
    assert watching.see().rival == rival


def test_who_does_not_collect_has_no_rival_and_of_several_the_oldest_counts(server, watching, until):
    put_experiment(server, created=NEW, phases=["train"])
    put_experiment(server, "one", created="2026-05-01T10:30:00Z")
    put_experiment(server, "two", created=OLD)
    until(lambda: len(watching.observer.experiments.objects) == 3)
    assert watching.see().rival is None
    assert watching.see("one").rival == (("a", "two"), True)
    assert watching.see("two").rival == (("a", "one"), False)


def test_of_two_made_in_the_same_second_exactly_one_is_the_older(server, watching, until):
    put_experiment(server, "one", created=OLD)
    put_experiment(server, "two", created=OLD)
    until(lambda: len(watching.observer.experiments.objects) == 2)
    assert sorted(watching.see(name).rival[1] for name in ("one", "two")) == [False, True]


def event(server, name, message, *, reason="FailedCreate", about="j", last=None, created=OLD):
    item = {"involvedObject": {"name": about, "kind": "Job"}, "type": "Warning", "reason": reason, "message": message}
    times = {"lastTimestamp": last} if last else {}
    server.put(
        *CORE_EVENTS, {"metadata": {"namespace": "a", "name": name, "creationTimestamp": created}, **item, **times}
    )


@pytest.fixture
def without_pods(server, watching, until):
    put_experiment(server)
    put(server, JOBS, "j", kind_name="Job")
    until(lambda: watching.observer.jobs.objects and watching.observer.experiments.objects)
    return watching


def test_a_job_that_stays_without_pods_is_asked_why(server, without_pods, clock, until):
    event(server, "one", "exceeded quota: old", last=OLD, created=NEW)
    event(server, "two", "exceeded quota: new", last=NEW)
    event(server, "three", "another reason", reason="Unhealthy", created="2026-05-02T10:00:00Z")
    event(server, "four", "of another", about="k", created="2026-05-02T10:00:00Z")
    assert without_pods.see().refusals == {}
    assert server.count("GET .*events") == 0  # it has just been released
    clock.now += REFUSAL_SECONDS
    for _ in range(5):
        assert without_pods.see().refusals == {"j": "exceeded quota: new"}
    assert server.count("GET .*events") == 1
    clock.now += REFUSAL_SECONDS
    event(server, "five", "violates PodSecurity", created="2026-05-01T11:30:00Z")
    assert without_pods.see().refusals == {"j": "violates PodSecurity"}
    put(server, JOBS, "j", kind_name="Job", status={"active": 1})
    until(lambda: next(iter(without_pods.observer.jobs.objects.values())).active)
    assert without_pods.see().refusals == {}
    assert without_pods.observer._refusals == {("a", "exp"): {}}


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {"suspend": True}},
        {"status": {"active": 3}},
        {"status": {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": OLD}]}},
        {"deletionTimestamp": OLD},
    ],
    ids=["suspended", "active", "ended", "deleted"],
)
def test_a_job_that_needs_no_pods_is_not_asked(server, watching, until, clock, changes):
    put_experiment(server)
    put(server, JOBS, "j", kind_name="Job", **changes)
    until(lambda: watching.observer.jobs.objects and watching.observer.experiments.objects)
    for _ in range(3):
        assert watching.see().refusals == {}
        clock.now += REFUSAL_SECONDS
    assert server.count("GET .*events") == 0


@pytest.mark.parametrize("fault", [Fault(status=403), Fault(drop=True)], ids=str)
def test_events_that_cannot_be_read_are_asked_for_again(server, without_pods, clock, fault):
    event(server, "one", "exceeded quota")
    server.next("GET .*events", fault)
    without_pods.see()
    clock.now += REFUSAL_SECONDS
    assert without_pods.see().refusals == {}
    clock.now += REFUSAL_SECONDS
    assert without_pods.see().refusals == {"j": "exceeded quota"}
