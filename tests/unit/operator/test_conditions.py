"""The eight conditions: which holds when, with what reason."""

from __future__ import annotations

import pytest

from kubesae.ledger import PHASES
from kubesae_operator.api import CONDITIONS, REASONS, Problem
from kubesae_operator.conditions import conditions
from kubesae_operator.phases import phase_states
from observed import ended, experiment, job, observed, pod, running, stamp, view

REST = PHASES[1:]


def said(seen):
    return {item["type"]: (item["status"], item["reason"]) for item in conditions(seen, phase_states(seen))}


def differing(seen):
    """The conditions that are not as in an experiment that waits for its first phase."""
    quiet = said(observed([job("prepare")]))
    return {kind: found for kind, found in said(seen).items() if found != quiet[kind]}


def test_of_an_experiment_that_waits_nothing_holds_but_that_it_can_be_read():
    assert said(observed([job("prepare")])) == {
        "Ready": ("True", "AsExpected"),
        "Collecting": ("False", "NotYet"),
        "CollectionComplete": ("False", "NotYet"),
        "Training": ("False", "NotYet"),
        "Complete": ("False", "NotYet"),
        "Failed": ("False", "AsExpected"),
        "Suspended": ("False", "NotYet"),
        "Degraded": ("False", "AsExpected"),
    }


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (observed([job("prepare")], view=None), {"Ready": ("False", "NotYet")}),
        (
            observed([job("prepare")], problem=Problem("BucketMissing", "none")),
            {"Ready": ("False", "BucketMissing")},
        ),
        (
            observed([running("collect")], view=view("prepare", "pilot")),
            {"Collecting": ("True", "InProgress")},
        ),
        (
            observed([running("train")], view=view("prepare", "pilot", "collect", "verify")),
            {
                "Collecting": ("False", "Done"),
                "CollectionComplete": ("True", "Done"),
                "Training": ("True", "InProgress"),
            },
        ),
        (
            observed(view=view(*REST)),
            {
                "Collecting": ("False", "Done"),
                "CollectionComplete": ("True", "Done"),
                "Training": ("False", "Done"),
                "Complete": ("True", "Done"),
            },
        ),
        (observed([ended("prepare", "Failed")]), {"Failed": ("True", "JobFailed")}),
        (
            observed([job("prepare")], view=view(mismatch="layers")),
            {"Ready": ("False", "IdentityMismatch"), "Failed": ("True", "IdentityMismatch")},
        ),
        (
            observed([job("prepare")], experiment=experiment(suspend=True)),
            {"Suspended": ("True", "SuspendedByUser")},
        ),
        (
            observed([running("prepare")], [pod("prepare", trouble=("ImageMissing", "i"))]),
            {"Degraded": ("True", "ImageMissing")},
        ),
    ],
)
def test_what_holds_then(seen, expected):
    assert differing(seen) == expected


def test_a_complete_experiment_is_not_degraded_by_what_is_left_of_it():
    left = [pod("collect", deleted_at=stamp(9999), trouble=("OutOfMemory", ""))]
    assert (
        said(observed([running("collect")], left, view=view(*REST), rival=(("a", "b"), False)))["Degraded"][0]
        == "False"
    )


def test_of_several_troubles_the_first_is_said_and_the_others_are_counted():
    pods = [pod("prepare", trouble=("ImageMissing", "i")), pod("prepare", trouble=("ConfigMissing", "c"))]
    seen = observed([running("prepare")], pods, rival=(("a", "b"), False))
    message = next(item["message"] for item in conditions(seen, phase_states(seen)) if item["type"] == "Degraded")
    assert message.startswith("Pod exp-prepare-0-abcde: image i")
    assert message.endswith(" (2 more)")


def test_an_experiment_without_phases_is_never_complete():
    assert said(observed(experiment=experiment(phases=())))["Complete"] == ("False", "NotYet")


def test_all_conditions_have_the_fields_of_the_api():
    for item in conditions(observed(), phase_states(observed())):
        assert list(item) == ["type", "status", "reason", "message", "lastTransitionTime", "observedGeneration"]
        assert item["type"] in CONDITIONS
        assert item["reason"] in REASONS
        assert item["lastTransitionTime"] == "2026-05-01T12:00:00Z"
