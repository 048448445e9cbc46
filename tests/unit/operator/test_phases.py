"""Where a phase stands, by its Jobs and by the store; what holds it back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubesae_operator.api import Problem
from kubesae_operator.bucket import SaeProgress
from kubesae_operator.phases import complete_phases, job_patches, jobs_of, phase_states
from observed import NAMESPACE, NOW, ended, experiment, job, observed, running, view

ALL = ("fetch", "prepare", "pilot", "collect", "verify", "train", "interpret")


def state(seen, phase):
    return next(item.state for item in phase_states(seen) if item.phase == phase)


def patched(seen):
    return [(item.job.phase, item.job.sae, item.suspend, item.queue) for item in job_patches(seen, phase_states(seen))]


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        ([], "Waiting"),
        ([job("collect")], "Waiting"),
        ([running("collect")], "Running"),
        ([ended("collect", "Failed")], "Failed"),
        ([ended("collect", ago=5)], "Running"),  # the store is given time to show it
        ([ended("collect", ago=31)], "Failed"),  # it does not
        ([job("collect", held=True)], "Suspended"),
        ([ended("collect", "Failed"), job("collect", number=2)], "Waiting"),
        ([ended("collect", "Failed"), running("collect", number=2)], "Running"),
        ([running("collect"), job("collect", number=2)], "Waiting"),
        ([running("collect", deleting=True)], "Waiting"),
        ([job("collect", queue="q")], "Waiting"),  # a queue that the experiment does not have
    ],
)
def test_the_newest_job_says_where_a_phase_stands(jobs, expected):
    assert state(observed(jobs), "collect") == expected


@pytest.mark.parametrize("jobs", [[], [running("collect")], [ended("collect", "Failed")], [job("collect", held=True)]])
def test_what_the_store_shows_complete_is_complete_whatever_its_jobs_say(jobs):
    assert state(observed(jobs, view=view("collect")), "collect") == "Complete"


def test_a_success_that_the_store_cannot_show_now_is_no_failure():
    jobs = [ended("collect", ago=3600)]
    assert state(observed(jobs, view=None), "collect") == "Running"
    assert state(observed(jobs, problem=Problem("StoreUnreachable", "")), "collect") == "Running"
    looked_before = view(looked=NOW.replace(hour=10))
    assert state(observed(jobs, view=looked_before), "collect") == "Running"


def test_a_suspended_experiment_suspends_what_is_neither_complete_nor_failed():
    jobs = [running("collect"), ended("verify", "Failed"), job("train")]
    seen = observed(jobs, view=view("prepare", "pilot"), experiment=experiment(suspend=True))
    assert [item.state for item in phase_states(seen)] == [
        *("Complete", "Complete", "Suspended", "Failed", "Suspended", "Suspended"),
    ]


def test_with_its_queue_a_job_counts_as_released_while_kueue_still_holds_it():
    seen = observed([job("prepare", queue="q")], experiment=experiment(queue="q"))
    assert state(seen, "prepare") == "Running"
    assert patched(seen) == []


def test_suspending_takes_jobs_from_their_queue():
    jobs = [job("prepare", queue="q"), running("pilot", queue="q"), running("collect"), job("verify")]
    seen = observed(jobs, experiment=experiment(queue="q", suspend=True))
    assert patched(seen) == [("prepare", "", True, ""), ("pilot", "", True, ""), ("collect", "", True, None)]


def test_a_held_job_is_not_started_and_does_not_go_on():
    assert patched(observed([job("prepare", held=True)])) == []
    assert patched(observed([running("prepare", held=True)])) == [("prepare", "", True, None)]
    assert patched(observed([job("train", held=True, queue="q")])) == [("train", "", True, "")]
    assert patched(observed([ended("prepare", held=True)])) == []


def test_a_held_job_holds_what_follows_but_not_what_is_beside_it():
    jobs = [job("train", "a", held=True), job("train", "b"), job("interpret", "a")]
    seen = observed(jobs, view=view("prepare", "pilot", "collect", "verify"))
    assert patched(seen) == [("train", "b", False, None)]


def test_a_failed_phase_holds_what_follows():
    jobs = [ended("train", "Failed", sae="a"), job("train", "b"), job("interpret", "a")]
    assert patched(observed(jobs, view=view("prepare", "pilot", "collect", "verify"))) == [("train", "b", False, None)]


def test_a_phase_that_is_off_is_neither_waited_for_nor_started():
    seen = observed([job("pilot"), job("train")], experiment=experiment(phases=("train", "interpret")))
    assert patched(seen) == [("train", "", False, None)]
    assert [item.phase for item in phase_states(seen)] == ["train", "interpret"]


def test_a_job_of_an_sae_that_is_trained_is_not_started_again():
    saes = (SaeProgress("a", trained=True), SaeProgress("b"))
    seen = observed(
        [job("train", "a"), job("train", "b"), job("interpret", "a")],
        view=view("prepare", "pilot", "collect", "verify", saes=saes),
    )
    assert patched(seen) == [("train", "b", False, None)]


def test_an_sae_s_job_that_ended_well_is_proven_by_its_own_report():
    jobs = [ended("train", sae="a"), running("train", "b")]
    waiting = view("prepare", saes=(SaeProgress("a", trained=True), SaeProgress("b")))
    assert state(observed(jobs, view=waiting), "train") == "Running"
    nothing = view("prepare", saes=(SaeProgress("a"), SaeProgress("b")))
    assert state(observed(jobs, view=nothing), "train") == "Failed"


def test_a_model_is_fetched_when_its_job_says_so_or_when_nobody_needs_it_any_more():
    about = experiment(phases=ALL)
    assert complete_phases(observed(experiment=about)) == set()
    assert complete_phases(observed([ended("fetch")], experiment=about)) == {"fetch"}
    assert complete_phases(observed([ended("fetch"), job("fetch", number=2)], experiment=about)) == set()
    done = view("prepare", "pilot", "collect")
    assert complete_phases(observed(experiment=about, view=done)) == {"fetch", "prepare", "pilot", "collect"}
    assert "fetch" not in complete_phases(observed(experiment=about, view=view("prepare", "collect")))
    assert complete_phases(observed(experiment=experiment(phases=("fetch", "train")), view=done)) == set()
    assert complete_phases(observed(view=view("fetch", "prepare"))) == {"prepare"}  # fetch is off


def test_on_a_new_cluster_over_complete_data_no_pod_starts():
    jobs = [job(phase) for phase in ALL]
    seen = observed(jobs, view=view(*ALL[1:]), experiment=experiment(phases=ALL))
    assert patched(seen) == []
    assert {item.state for item in phase_states(seen)} == {"Complete"}


@pytest.mark.parametrize(
    ("phase", "older", "waits"),
    [("prepare", True, True), ("collect", True, True), ("prepare", False, False), ("verify", True, False)],
)
def test_of_two_at_one_prefix_the_younger_waits_with_what_it_would_write(phase, older, waits):
    seen = observed(
        [job(phase)], experiment=experiment(phases=(phase,)), rival=((NAMESPACE, "other"), older), view=view()
    )
    assert patched(seen) == ([] if waits else [(phase, "", False, None)])


@pytest.mark.parametrize(
    "changes", [{"view": None}, {"problem": Problem("BucketMissing", "")}, {"view": view(mismatch="layers")}]
)
def test_nothing_is_released_as_long_as_too_little_is_known(changes):
    assert patched(observed([job("prepare")], **changes)) == []


def test_of_two_generations_the_newer_one_is_the_job_of_now():
    old, new = running("collect"), job("collect", number=2)
    assert jobs_of(observed([new, old]), "collect") == (new,)
    assert jobs_of(observed([old, replace(new, deleting=True)]), "collect") == (old,)
    one, two = job("train", "a"), job("train", "b", number=2)
    assert set(jobs_of(observed([one, two]), "train")) == {one, two}
