"""What is kept of a Pod, and what is seen to keep it from its work."""

from __future__ import annotations

import pytest

from kubesae_operator.api import PodState
from kubesae_operator.pods import SAID, pod_state

META = {
    "namespace": "a",
    "name": "exp-collect-0-x",
    "labels": {
        "kubesae.dev/experiment": "exp",
        "kubesae.dev/phase": "collect",
        "batch.kubernetes.io/job-name": "exp-collect-1",
    },
    "annotations": {"batch.kubernetes.io/job-completion-index": "3"},
}


def pod(*containers, init=(), **changes):
    status = {"containerStatuses": list(containers), "initContainerStatuses": list(init)}
    return {"metadata": META, "spec": {"nodeName": "node-1"}, "status": status, **changes}


def container(state="state", *, restarts=0, image="r/jobs:1", **what):
    return {"name": "kubesae", "image": image, "restartCount": restarts, state: what}


def test_a_pod_that_runs_is_cut_down_to_where_it_belongs():
    assert pod_state(pod(container(running={"startedAt": "x"}))) == PodState(
        ("a", "exp-collect-0-x"), "exp", "collect", "exp-collect-1", "node-1", index=3
    )


def test_a_pod_of_a_pytorchjob_names_it_and_has_no_index():
    labels = {"kubesae.dev/experiment": "exp", "kubesae.dev/phase": "train", "training.kubeflow.org/job-name": "t"}
    found = pod_state(pod(metadata={"namespace": "a", "name": "t-master-0", "labels": labels}))
    assert (found.job, found.index, found.phase) == ("t", None, "train")


def test_a_pod_of_which_almost_nothing_is_said_is_taken():
    found = pod_state({"metadata": {"namespace": "a", "name": "p"}})
    assert found == PodState(("a", "p"), "", "", "")


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"])
def test_an_image_that_cannot_be_had_is_named(reason):
    waiting = container(waiting={"reason": reason, "message": 'Back-off pulling image "r/jobs:1"'})
    assert pod_state(pod(waiting)).trouble == ("ImageMissing", "r/jobs:1")
    first = container(waiting={"reason": "PodInitializing"})
    assert pod_state(pod(first, init=[waiting])).trouble == ("ImageMissing", "r/jobs:1")


def test_a_secret_that_a_container_needs_is_named():
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}
    assert pod_state(pod(container(waiting=waiting))).trouble == ("ConfigMissing", 'secret "hub" not found')


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing", "CrashLoopBackOff", ""])
def test_waiting_as_such_is_no_trouble(reason):
    assert pod_state(pod(container(waiting={"reason": reason}))).trouble is None


def test_a_pod_without_a_node_says_why():
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    assert pod_state(pod(status={"conditions": [{"type": "Ready"}, condition]})).trouble == (
        "Unschedulable",
        "0/1 nodes",
    )
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    assert pod_state(pod(status={"conditions": [gated]})).trouble is None


@pytest.mark.parametrize("state", ["state", "lastState"])
def test_how_a_container_ended_is_kept_now_and_after_it_was_started_again(state):
    ends = {"exitCode": 137, "reason": "OOMKilled", "message": "a\n b  c\n", "finishedAt": "2026-05-01T11:00:00Z"}
    found = pod_state(pod(container(state, restarts=2, terminated=ends)))
    assert (found.trouble, found.exit_code, found.said) == (("OutOfMemory", ""), 137, "a b c")
    assert (found.ended_at, found.restarts) == ("2026-05-01T11:00:00Z", 2)


def test_a_success_is_no_end_to_tell_of():
    found = pod_state(pod(container(terminated={"exitCode": 0, "reason": "Completed", "message": "done"})))
    assert (found.trouble, found.exit_code, found.said, found.ended_at) == (None, None, "", "")


def test_of_last_words_the_end_is_kept():
    found = pod_state(pod(container(terminated={"exitCode": 2, "message": "x" * 9999 + "the end"})))
    assert len(found.said) == SAID
    assert found.said.endswith("the end")


def test_restarts_are_those_of_the_pod_and_of_the_pods_before_it():
    notes = META["annotations"] | {
        "batch.kubernetes.io/job-index-failure-count": "4",
        "batch.kubernetes.io/job-index-ignored-failure-count": "2",
    }
    given = pod(container(restarts=1, running={}), init=[container(restarts=1, running={})])
    assert pod_state({**given, "metadata": {**META, "annotations": notes}}).restarts == 8


def test_a_pod_that_is_to_end_says_when():
    assert pod_state(pod(metadata={**META, "deletionTimestamp": "2026-05-01T11:00:00Z"})).deleted_at == (
        "2026-05-01T11:00:00Z"
    )
