"""What Prometheus is told of experiments: as it is now, and nothing of those that are gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubesae.ledger import TrainPoint
from kubesae_operator.api import Actions
from kubesae_operator.bucket import SaeProgress
from kubesae_operator.metrics import Metrics
from kubesae_operator.reconcile import reconcile
from observed import NAMESPACE, collection, experiment, observed, pod, running, view

WHO = {"namespace": NAMESPACE, "experiment": "exp"}


@pytest.fixture
def metrics():
    return Metrics()


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"kubesae_{name}", WHO | labels)


def series(metrics, who=WHO):
    return [
        sample
        for family in metrics.registry.collect()
        for sample in family.samples
        if who.items() <= sample.labels.items()
    ]


def note(metrics, seen):
    metrics.note(seen, reconcile(seen))


def seen_with(**changes):
    look = view("prepare", "pilot", collection=collection([2, 4, 0], ages=[30, 5, 0]), next_parts=(2, 4, 0), **changes)
    return observed([running("collect")], [pod(restarts=2), pod(restarts=3), pod("pilot")], view=look)


def test_a_collection_in_numbers(metrics):
    note(metrics, seen_with(bytes=5000, lists=7))
    assert {state: value(metrics, "shards", state=state) for state in ("running", "complete", "waiting", "slow")} == {
        "running": 1, "complete": 1, "waiting": 1, "slow": None,
    }  # fmt: skip
    names = ("tokens_total", "tokens_wanted", "bytes_total", "tokens_per_second", "stragglers", "store_lists")
    assert [value(metrics, name) for name in names] == [600, 1200, 5000, 10, 0, 7]
    assert value(metrics, "eta_seconds") == 60
    assert value(metrics, "commit_lag_seconds") == 30
    assert value(metrics, "restarts", phase="collect") == 5
    assert value(metrics, "phase", phase="collect", state="Running") == 1
    assert value(metrics, "condition", type="Collecting", reason="InProgress") == 1
    assert value(metrics, "condition", type="Failed", reason="AsExpected") == 0


def test_stragglers_are_the_slow_and_the_silent(metrics):
    silent = view(collection=collection([2, 2], ages=[7200, 5]), next_parts=(2, 2))
    note(metrics, observed(view=silent))
    assert value(metrics, "stragglers") == 1
    assert value(metrics, "shards", state="silent") == 1


def test_an_sae_in_numbers(metrics):
    note(metrics, observed(view=view(saes=(SaeProgress("a", point=TrainPoint(5, 1, 0.25, 31.5)), SaeProgress("b")))))
    assert (value(metrics, "train_loss", sae="a"), value(metrics, "train_l0", sae="a")) == (0.25, 31.5)
    assert value(metrics, "train_loss", sae="b") is None


def test_what_is_no_longer_so_is_not_told_any_more(metrics):
    note(metrics, seen_with())
    note(metrics, observed(view=view("prepare", "pilot", collection=collection([4, 4, 4]), next_parts=(4, 4, 4))))
    assert value(metrics, "shards", state="running") is None
    assert value(metrics, "shards", state="complete") == 3
    assert value(metrics, "eta_seconds") is None
    assert value(metrics, "phase", phase="collect", state="Running") is None
    assert value(metrics, "restarts", phase="collect") is None


def test_when_the_status_is_as_it_was_the_one_in_the_cluster_is_told(metrics):
    seen = seen_with()
    status = reconcile(seen).status
    metrics.note(replace(seen, experiment=experiment(status=status)), Actions())
    assert value(metrics, "phase", phase="collect", state="Running") == 1


def test_without_a_look_nothing_is_told_of_the_store(metrics):
    note(metrics, replace(seen_with(), view=None))
    assert value(metrics, "tokens_total") is None
    assert value(metrics, "condition", type="Ready", reason="NotYet") == 0


def test_of_a_gone_experiment_nothing_is_left_and_of_the_others_all(metrics):
    other = replace(seen_with(), experiment=experiment(key=(NAMESPACE, "other")))
    note(metrics, seen_with())
    note(metrics, other)
    metrics.forget((NAMESPACE, "exp"))
    assert series(metrics) == []
    kept = WHO | {"experiment": "other"}
    assert len(series(metrics, kept)) > 20
    metrics.clear()
    assert series(metrics, kept) == []


def test_no_series_is_of_a_pod_or_a_shard(metrics):
    many = view(collection=collection([1] * 500), next_parts=(1,) * 500)
    note(metrics, observed([running("collect")], [pod(index=index, restarts=1) for index in range(500)], view=many))
    assert len(series(metrics)) < 40
