"""What goes wrong, one after the other: the reason, the words that say what to do, and when it is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from kubesae.ledger import PHASES
from kubesae_operator.api import REASONS, Problem
from kubesae_operator.bucket import SaeProgress
from kubesae_operator.phases import phase_states
from kubesae_operator.troubles import FAILING, QUOTED, failures, troubles
from observed import DATA, NAMESPACE, NOW, collection, ended, experiment, job, observed, pod, running, stamp, view

COLLECTS = [running("collect")]
READY = view("prepare", "pilot")


def held_up(seen):
    return list(troubles(seen, phase_states(seen)))


def failed(seen):
    return list(failures(seen, phase_states(seen)))


def of_pods(*pods):
    return held_up(observed(COLLECTS, pods, view=READY))


@pytest.mark.parametrize(
    ("trouble", "reason", "words"),
    [
        (("ImageMissing", "r/jobs:9"), "ImageMissing", ["r/jobs:9", "cannot be pulled", "image.registry", "tag"]),
        (
            ("ConfigMissing", 'secret "hub" not found'),
            "ConfigMissing",
            ['secret "hub"', "Create it in namespace research"],
        ),
        (
            ("Unschedulable", "0/4 nodes are available: 4 Insufficient nvidia.com/gpu."),
            "Unschedulable",
            ["Insufficient nvidia.com/gpu", "phases.collect.gpus"],
        ),
        (
            ("OutOfMemory", ""),
            "OutOfMemory",
            ["node-1 ran out of memory", "phases.collect.resources.limits.memory"],
        ),
    ],
)
def test_what_a_pod_suffers_from_is_said_with_what_to_do(trouble, reason, words):
    (found,) = of_pods(pod(trouble=trouble))
    assert found.reason == reason
    assert [word for word in ["exp-collect-0-abcde", *words] if word not in found.message] == []


def test_of_many_pods_with_the_same_trouble_one_is_named_and_the_others_are_counted():
    pods = [pod(trouble=("Unschedulable", "no room")), pod(trouble=("ImageMissing", "i"))]
    found = of_pods(*pods, *[pod(trouble=("Unschedulable", "no room"))] * 998)
    assert [problem.reason for problem in found] == ["Unschedulable", "ImageMissing"]
    assert "exp-collect-0-abcde and 998 more: no room" in found[0].message


def test_pods_of_another_phase_or_of_one_that_does_not_run_are_no_trouble():
    lost = pod("prepare", trouble=("ImageMissing", "i"))
    assert held_up(observed(COLLECTS, [lost], view=READY)) == []
    assert held_up(observed([job("collect")], [pod(trouble=("ImageMissing", "i"))], view=READY)) == []


def test_a_pod_of_a_lost_node_is_stuck_and_its_node_named():
    deleted = pod(deleted_at=stamp(360))
    (found,) = of_pods(deleted)
    assert found.reason == "PodStuck"
    assert "on node-1 should have ended about 6 min ago" in found.message
    assert "`kubectl delete node node-1`" in found.message
    assert of_pods(pod(deleted_at=stamp(290))) == []


def test_a_stuck_pod_is_told_in_the_same_words_for_a_minute():
    said = {
        held_up(
            replace(observed(COLLECTS, [pod(deleted_at=stamp(360))], view=READY), now=NOW + timedelta(seconds=more))
        )[0]
        for more in range(0, 29, 4)
    }
    assert len(said) == 1


@pytest.mark.parametrize(
    ("exit_code", "restarts", "told"),
    [(1, FAILING, True), (139, 9, True), (1, FAILING - 1, False), (75, 99, False), (None, 99, False)],
)
def test_a_container_that_fails_again_and_again_is_told_of_and_an_interrupted_one_is_not(exit_code, restarts, told):
    found = of_pods(pod(exit_code=exit_code, restarts=restarts, said="no space left", ended_at=stamp(60)))
    assert [problem.reason for problem in found] == ["ContainerFailing"] * told
    if told:
        assert f'exit {exit_code}: "no space left"' in found[0].message
        assert "kubectl logs -n research -l kubesae.dev/experiment=exp,kubesae.dev/phase=collect" in found[0].message


@pytest.mark.parametrize(
    ("number", "exit_code", "told"), [(FAILING, 1, True), (5, 1, True), (FAILING - 1, 1, False), (9, 75, False)]
)
def test_of_a_job_without_indexes_each_failure_is_another_pod(number, exit_code, told):
    prepare = running("prepare")
    pods = [
        pod("prepare", key=(NAMESPACE, f"p{i}"), job=prepare.key[1], exit_code=exit_code, said=f"no hub {i}",
            index=None, ended_at=stamp(60 * i))
        for i in range(number)
    ]  # fmt: skip
    found = held_up(observed([prepare], pods[::-1], view=view()))
    assert [problem.reason for problem in found] == ["ContainerFailing"] * told
    if told:
        assert found[0].message.startswith(f"{number} Pods of Job {prepare.key[1]} have failed, one after the other")
        assert 'exit 1: "no hub 0"' in found[0].message
        assert "kubesae.dev/phase=prepare --all-containers`" in found[0].message


def test_workers_of_a_training_that_fail_together_have_each_failed_once():
    train = running("train")
    pods = [pod("train", job=train.key[1], exit_code=1, index=None, ended_at=stamp(9)) for _ in range(8)]
    assert held_up(observed([train], pods, view=view("prepare", "pilot", "collect", "verify"))) == []


@pytest.mark.parametrize("suffers", [{"trouble": ("OutOfMemory", "")}, {"exit_code": 1, "restarts": 9}])
def test_a_container_that_failed_long_ago_is_history(suffers):
    assert of_pods(pod(ended_at=stamp(600), **suffers))  # a Job's longest pause, before it is started again
    assert of_pods(pod(ended_at=stamp(1800), **suffers)) == []


def test_a_quota_that_allows_no_pod_and_any_other_refusal():
    def refused(said):
        seen = observed(COLLECTS, view=READY, refusals={COLLECTS[0].key[1]: said})
        return held_up(seen)[0]

    quota = refused('pods "x" is forbidden: exceeded quota: small, requested: requests.memory=1Gi')
    assert quota.reason == "QuotaExceeded"
    assert "exceeded quota: small" in quota.message
    assert "Raise the quota of namespace research, or lower phases.collect.resources" in quota.message
    other = refused('violates PodSecurity "restricted:latest"')
    assert other.reason == "PodsRefused"
    assert "violates PodSecurity" in other.message
    assert held_up(observed(COLLECTS, view=READY, refusals={"another-job": "exceeded quota"})) == []


def test_of_two_releases_at_one_prefix_both_are_told_and_each_what_to_do():
    rival = (NAMESPACE, "other")
    seen = observed([job("prepare")], rival=(rival, True))
    (younger,) = held_up(seen)
    assert younger.reason == "PrefixShared"
    assert f"research/other collects at {DATA} already" in younger.message
    assert "another `data`" in younger.message
    (older,) = held_up(observed([running("prepare")], rival=(rival, False)))
    assert (older.reason, "has to wait" in older.message) == ("PrefixShared", True)


def test_for_the_older_one_what_holds_it_up_itself_comes_first():
    found = held_up(observed(COLLECTS, [pod(trouble=("ImageMissing", "i"))], view=READY, rival=(("a", "b"), False)))
    assert [problem.reason for problem in found] == ["ImageMissing", "PrefixShared"]
    found = held_up(observed(COLLECTS, [pod(trouble=("ImageMissing", "i"))], view=READY, rival=(("a", "b"), True)))
    assert [problem.reason for problem in found] == ["PrefixShared", "ImageMissing"]


def test_a_phase_that_is_due_without_a_job_is_told():
    (found,) = held_up(observed([job("train")]))
    assert (found.reason, found.message[:14]) == ("JobMissing", "prepare is due")
    assert "helm upgrade" in found.message
    for seen in (
        observed([job("prepare")]),  # the next ones are not due yet
        observed(view=view(*PHASES)),
        observed(view=None),
        observed(experiment=experiment(suspend=True)),
    ):
        assert held_up(seen) == []


def test_a_silent_shard_is_told_with_its_node():
    look = replace(READY, collection=collection([4, 2, 2], parts=4, ages=[5, 3600, 7200]), next_parts=(4, 2, 2))
    seen = observed(COLLECTS, [pod(index=2, node="node-7")], view=look)
    (found,) = held_up(seen)
    assert found.reason == "NoProgress"
    assert "Shard 2 (node node-7) has committed nothing for about 2 h 0 min, usually every 10 s." in found.message
    assert "1 more are silent too" in found.message
    assert held_up(replace(seen, jobs=(job("collect"),))) == []  # nobody is at work


@pytest.mark.parametrize("kind", ["Job", "PyTorchJob"])
def test_a_failed_job_says_its_last_words_and_how_to_try_again(kind):
    dead = ended("train", "Failed", kind=kind, message="Job has reached the specified backoff limit")
    quiet = failed(observed([dead], view=READY))[0]
    assert quiet.reason == "JobFailed"
    assert "has failed (BackoffLimitExceeded). Job has reached the specified backoff limit" in quiet.message
    assert quiet.message.endswith("mend it, then `kubesae retry train`.")
    pods = [
        pod("train", job=dead.key[1], exit_code=1, said="a fault"),
        pod("train", job=dead.key[1], exit_code=2, said="Field k is no number. Correct it."),
        pod("train", job="another", exit_code=2, said="not this one"),
    ]
    (loud,) = failed(observed([dead], pods, view=READY))
    assert 'Its last words: "Field k is no number. Correct it"' in loud.message


def test_long_words_of_others_are_cut_where_they_say_least():
    dead = ended("train", "Failed")
    said = "x" * 999 + " the end"
    (found,) = failed(observed([dead], [pod("train", job=dead.key[1], said=said)], view=READY))
    assert "x the end" in found.message
    assert found.message.count("x") < QUOTED
    (found,) = of_pods(pod(trouble=("Unschedulable", "the beginning " + "x" * 999)))
    assert "the beginning" in found.message
    assert len(found.message) < 400


def test_every_failed_job_of_a_phase_is_told():
    jobs = [ended("train", "Failed", sae="a"), ended("train", "Failed", sae="b"), running("train", "c")]
    assert [problem.reason for problem in failed(observed(jobs, view=READY))] == ["JobFailed", "JobFailed"]


def test_a_success_that_left_nothing_is_told():
    (found,) = failed(observed([ended("collect", ago=60)], view=READY))
    assert found.reason == "NothingStored"
    assert "the store does not show collect complete" in found.message
    assert "`kubesae retry collect`" in found.message
    saes = (SaeProgress("a", trained=True), SaeProgress("b"))
    (found,) = failed(observed([ended("train", sae="a"), ended("train", sae="b")], view=replace(READY, saes=saes)))
    assert "exp-train-b-" in found.message


def test_data_of_another_experiment_and_a_description_that_is_none():
    (found,) = failed(observed(view=view(mismatch="The layers differ. Give another `data`.")))
    assert (found.reason, found.message) == ("IdentityMismatch", "The layers differ. Give another `data`.")
    problem = Problem("InvalidExperiment", "layers: missing")
    assert failed(observed(problem=problem)) == [problem]
    assert failed(observed(problem=Problem("BucketMissing", "x"))) == []


def test_every_reason_is_one_that_the_api_takes():
    reasons = {"QuotaExceeded", "PodsRefused", "PrefixShared", "JobMissing", "NoProgress", "JobFailed", "NothingStored"}
    reasons |= {"PodStuck", "ContainerFailing", "OutOfMemory", "Unschedulable", "ConfigMissing", "ImageMissing"}
    assert reasons <= REASONS.keys()
