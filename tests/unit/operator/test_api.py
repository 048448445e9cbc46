"""What is kept of the API's objects; those that make no sense raise what the watch expects."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubesae.ledger import PHASES
from kubesae_operator.api import CONDITIONS, REASONS, JobState, Problem, SaeExperiment, StoreRef

DOCS = Path(__file__).parents[3] / "docs"

META = {"namespace": "a", "name": "exp", "uid": "u", "creationTimestamp": "2026-05-01T10:00:00Z"}
LABELS = {"kubesae.dev/experiment": "exp", "kubesae.dev/phase": "train", "kubesae.dev/sae": "wide"}
ENDED = "2026-05-01T11:00:00Z"


def job(kind="Job", meta=None, spec=None, **status):
    return JobState.of(
        {"kind": kind, "metadata": {**META, "labels": LABELS, **(meta or {})}, "spec": spec or {}, "status": status}
    )


def true(kind, **more):
    return {"type": kind, "status": "True", "lastTransitionTime": ENDED, **more}


def test_an_experiment_with_everything():
    store = {"secretName": "s3", "endpoint": "https://s3", "region": "eu", "caConfigMap": {"name": "ca", "key": "k"}}
    found = SaeExperiment.of(
        {
            "metadata": {**META, "generation": 3},
            "spec": {
                "suspend": True,
                "experiment": {"data": "s3://b/p"},
                "store": store,
                "queueName": "q",
                "phases": ["train", "prepare"],
            },
            "status": {"phase": "Training"},
        }
    )
    assert (found.key, found.uid, found.generation, found.created) == (("a", "exp"), "u", 3, META["creationTimestamp"])
    assert (found.suspend, found.queue, found.description) == (True, "q", {"data": "s3://b/p"})
    assert found.store == StoreRef("s3", "https://s3", "eu", "ca", "k")
    assert found.phases == ("prepare", "train")
    assert found.status == {"phase": "Training"}


@pytest.mark.parametrize("spec", [{}, {"store": None, "experiment": None}, {"store": {"caConfigMap": None}}])
def test_an_experiment_with_nothing(spec):
    found = SaeExperiment.of({"metadata": META, "spec": spec, "status": None})
    assert (found.suspend, found.queue, found.description, found.status) == (False, "", {}, {})
    assert found.store == StoreRef()
    assert found.phases == PHASES


@pytest.mark.parametrize("missing", ["namespace", "name", "uid", "creationTimestamp"])
@pytest.mark.parametrize("of", [SaeExperiment.of, JobState.of])
def test_what_is_no_object_of_the_api_is_refused(of, missing):
    with pytest.raises(KeyError, match=missing):
        of({"metadata": {name: value for name, value in META.items() if name != missing}})


@pytest.mark.parametrize("spec", [[], "text", {"store": ["x"]}, {"phases": 3}, {"store": {"caConfigMap": "x"}}])
def test_a_spec_of_another_shape_is_refused(spec):
    with pytest.raises((TypeError, AttributeError)):
        SaeExperiment.of({"metadata": META, "spec": spec})


def test_a_job_and_a_pytorchjob_suspend_each_in_its_own_field():
    assert job(spec={"suspend": True}).suspended
    assert not job(spec={"runPolicy": {"suspend": True}}).suspended
    assert job("PyTorchJob", spec={"runPolicy": {"suspend": True}}).suspended
    assert not job("PyTorchJob", spec={"suspend": True}).suspended
    assert not job().suspended
    assert not job("PyTorchJob").suspended


def test_labels_annotations_and_counts():
    found = job(
        meta={"annotations": {"kubesae.dev/hold": "true"}, "labels": {**LABELS, "kueue.x-k8s.io/queue-name": "q"}},
        active=2,
    )
    assert (found.experiment, found.phase, found.sae) == ("exp", "train", "wide")
    assert (found.held, found.queue, found.active, found.deleting) == (True, "q", 2, False)
    assert not job(meta={"annotations": {"kubesae.dev/hold": "false"}}).held
    assert job(meta={"deletionTimestamp": ENDED}).deleting
    replicas = {"Master": {"active": 1}, "Worker": {"active": 2, "succeeded": 1}, "None": {}}
    assert job("PyTorchJob", replicaStatuses=replicas).active == 3
    assert JobState.of({"metadata": META}).experiment == ""


@pytest.mark.parametrize(
    ("conditions", "ended"),
    [
        ([], ""),
        ([true("Suspended"), true("FailureTarget"), true("SuccessCriteriaMet")], ""),
        ([true("Complete")], "Complete"),
        ([true("Succeeded")], "Complete"),
        ([true("Failed")], "Failed"),
        (
            [{**true("Failed"), "status": "False"}, true("Succeeded"), {**true("Running"), "status": "False"}],
            "Complete",
        ),
        ([true("Failed"), true("Running")], "Failed"),  # the last one is not the state
        ([true("Complete"), true("Failed")], "Failed"),
    ],
)
def test_a_job_has_ended_when_a_condition_that_is_final_is_true(conditions, ended):
    assert job(conditions=conditions).ended == ended


def test_an_end_says_when_and_why():
    found = job(conditions=[true("Failed", reason="BackoffLimitExceeded", message="too often")])
    assert (found.ended_at, found.reason, found.message) == (ENDED, "BackoffLimitExceeded", "too often")
    assert job(conditions=[{"type": "Complete", "status": "True"}]).ended_at == META["creationTimestamp"]
    assert job(conditions=[{**true("Complete"), "lastTransitionTime": None}]).ended_at == META["creationTimestamp"]
    assert job(active=1).ended_at == ""


def test_a_problem_is_one_line():
    assert Problem("AccessDenied", " a\n\tb  c ").message == "a b c"


def test_every_reason_and_condition_is_explained_to_users():
    text = "".join((DOCS / name).read_text() for name in ("kubernetes.md", "contracts.md"))
    assert [word for word in (*REASONS, *CONDITIONS) if f"`{word}`" not in text] == []
