"""What the experiment's chart refuses before anything is made, and that it says the field and what to do."""

from __future__ import annotations

import pytest

from charts import EXPERIMENT, FETCHED, at, merged, refusal, render, template
from kubesae.errors import ConfigError
from kubesae.experiment import Experiment, validate

VALUES = {"experiment": EXPERIMENT}
A_CLUSTER = ("--api-versions", "apiregistration.k8s.io/v1/APIService")
WITH_OPERATOR = (*A_CLUSTER, "--api-versions", "kubesae.dev/v1alpha1/SAEExperiment")
WITH_KUBEFLOW = (*WITH_OPERATOR, "--api-versions", "kubeflow.org/v1/PyTorchJob")


def sae(**settings):
    return {"name": "first"} | settings


# What the values hold, what the message names, and what it says to do.
REFUSED = {
    "a field that is not there": (at("experiment.tokns", 3), "/experiment", "'tokns' not allowed"),
    "a field of a phase that is not there": (at("phases.collect.gpu", 2), "/phases/collect", "'gpu' not allowed"),
    "text for a number": (at("phases.collect.gpus", "two"), "/phases/collect/gpus", "want integer"),
    "a number out of range": (at("experiment.num_shards", 0), "/experiment/num_shards", "got 0, want 1"),
    "a word that is none of the choices": (at("phases.train.backend", "mpi"), "/phases/train/backend", "pytorchjob"),
    "a local folder for data": (at("experiment.data", "/data"), "experiment.data", "s3://bucket/prefix"),
    "a local folder for output": (at("experiment.output", "runs"), "experiment.output", "s3://bucket/prefix"),
    "layers out of order": (at("experiment.layers", [5, 3]), "experiment.layers", "must ascend"),
    "a layer twice": (at("experiment.layers", [3, 3]), "experiment.layers", "each layer once"),
    "a corpus twice": (
        at("experiment.corpora", [{"name": "a", "source": "b"}, {"name": "a", "source": "c"}]),
        "experiment.corpora",
        'the name "a". Give each its own',
    ),
    "blocks larger than parts": (at("experiment.contexts_per_block", 99), "experiment.contexts_per_block", "Lower it"),
    "more shards than tokens": (at("experiment.tokens", 3), "experiment.num_shards", "Lower it"),
    "an SAE of no layer": (
        merged(at("experiment.layers", [3, 5]), at("experiment.sae", [sae()])),
        "experiment.sae.0.layer",
        "Say which one",
    ),
    "an SAE of another layer": (at("experiment.sae", [sae(layer=4)]), "experiment.sae.0.layer", "Choose one of these"),
    "an SAE's name twice": (at("experiment.sae", [sae(), sae(k=5)]), "experiment.sae.1.name", "Give each its own"),
    "two SAEs that would get one name": (
        at("experiment.sae", [{"k": 1}, {"k": 2}]),
        "experiment.sae.1.name",
        "Name them",
    ),
    "a job an SAE, one without a name": (
        merged(at("experiment.sae", [sae(), {}]), at("phases.train.jobs", "each")),
        "experiment.sae.1.name",
        "phases.train.jobs=one",
    ),
    "a claim without its name": (at("modelCache.type", "persistentVolumeClaim"), "modelCache.claimName", "Name one"),
    "a folder of the node without its path": (at("modelCache.type", "hostPath"), "modelCache.hostPath", "Name one"),
    "a fetched model that is no folder": (at("phases.fetch.source", "a/b"), "experiment.model", "/models/NAME"),
    "a folder that nothing fills": (
        at("experiment.model", "/models/m"),
        "phases.fetch.source",
        "Say where it comes from",
    ),
    "fetching switched off": (
        merged(FETCHED, {"phases": {"fetch": {"enabled": False}}}),
        "phases.fetch.enabled",
        "Enable it",
    ),
    "a mirror beside a claim": (
        merged(
            FETCHED,
            at("phases.fetch.mirror", "s3://b/m"),
            {"modelCache": {"type": "persistentVolumeClaim", "claimName": "c"}},
        ),
        "phases.fetch.mirror",
        "Leave it empty",
    ),
    "fewest workers above all": (at("phases.train.minWorkers", 2), "phases.train.minWorkers", "Lower it"),
    "shards of features for other numbers of processes": (
        at("phases.train", {"featureShards": 3, "workers": 2, "gpus": 4}),
        "phases.train.featureShards",
        "Lower it",
    ),
    "shards of features that a lost Pod leaves incomplete": (
        at("phases.train", {"featureShards": 4, "workers": 2, "gpus": 2, "minWorkers": 1}),
        "phases.train.featureShards",
        "some may be lost). Lower it",
    ),
    "a preset twice": (
        at("experiment.corpora", [{"preset": "code"}, {"preset": "code"}]),
        "experiment.corpora",
        "Give each its own",
    ),
    "a preset that there is not": (at("experiment.corpora", [{"preset": "wiki"}]), "preset", "'wikipedia', 'books'"),
    "a corpus of nowhere": (at("experiment.corpora", [{"name": "a"}]), "/experiment/corpora/0", "'source'"),
    "a monitor of no metrics": (
        {"metrics": {"port": 0, "podMonitor": {"enabled": True}}},
        "metrics.port",
        "Set a port",
    ),
    "parallelism of no queue": (at("queue.minParallelism", 2), "queue.minParallelism", "Set queue.name"),
    "parallelism above the shards": (
        at("queue", {"name": "q", "minParallelism": 5}),
        "queue.minParallelism",
        "Lower it",
    ),
    "a digest that is none": (at("image.digest", "abc"), "/image/digest", "does not match pattern"),
    "a quantity that is none": (at("phases.all.scratch", "ten"), "/phases/all/scratch", "does not match pattern"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_with_the_field_and_what_to_do(what):
    values, field, to_do = REFUSED[what]
    said = refusal(merged(VALUES, values))
    assert field in said
    assert to_do in said


@pytest.mark.parametrize("field", ["data", "model", "layers", "corpora"])
def test_a_required_field_that_is_missing_is_named(field):
    experiment = {name: value for name, value in EXPERIMENT.items() if name != field}
    assert f"missing property '{field}'" in refusal({"experiment": experiment})


def test_no_values_at_all_are_refused_with_what_is_required():
    assert "missing properties 'data', 'model', 'layers', 'corpora'" in refusal({})


# Two fields that contradict each other: the chart and the program agree on what is wrong.
@pytest.mark.parametrize(
    "what",
    [
        what
        for what in REFUSED
        if what
        in {
            "a field that is not there",
            "a number out of range",
            "layers out of order",
            "a layer twice",
            "a corpus twice",
            "blocks larger than parts",
            "more shards than tokens",
            "an SAE of another layer",
        }
    ],
)
def test_the_program_refuses_it_too(what):
    values, _, _ = REFUSED[what]
    with pytest.raises(ConfigError):
        validate(Experiment, merged(VALUES, values)["experiment"], "the values")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a" * 34, "has 34 characters"),
        ("1st", "must begin with a letter"),
        ("a.b", "must begin with a letter and hold lower-case letters, digits and dashes"),
    ],
)
def test_a_name_that_jobs_cannot_bear_is_refused(name, why):
    said = refusal(VALUES, name=name)
    assert why in said
    assert "set fullnameOverride" in said
    assert render("experiment", merged(VALUES, at("fullnameOverride", "short")), name=name)


def test_a_cluster_without_the_operators_crd_is_refused_with_the_command_that_installs_it():
    said = refusal(VALUES, *A_CLUSTER)
    assert "this cluster does not know SAEExperiment" in said
    assert "helm install kubesae-operator helm/operator" in said


def test_a_cluster_without_kubeflow_is_refused_only_where_it_is_needed():
    said = refusal(VALUES, *WITH_OPERATOR)
    assert "phases.train.backend: this cluster does not know PyTorchJob" in said
    assert "phases.train.backend=job" in said
    assert render("experiment", VALUES, *WITH_KUBEFLOW)
    assert render("experiment", merged(VALUES, at("phases.train.backend", "job")), *WITH_OPERATOR)
    assert render("experiment", merged(VALUES, {"phases": {"train": {"enabled": False}}}), *WITH_OPERATOR)


def test_a_cluster_without_the_prometheus_operator_is_refused_only_where_it_is_needed():
    monitored = {"metrics": {"podMonitor": {"enabled": True}}}
    said = refusal(merged(VALUES, monitored), *WITH_KUBEFLOW)
    assert "metrics.podMonitor.enabled: this cluster does not know PodMonitor" in said
    assert render("experiment", merged(VALUES, monitored))
    ran = template("operator", {"metrics": {"serviceMonitor": {"enabled": True}}}, *A_CLUSTER)
    assert "metrics.serviceMonitor.enabled: this cluster does not know ServiceMonitor" in ran.stderr


def test_where_helm_has_not_asked_a_cluster_nothing_is_held_against_it():
    assert render("experiment", VALUES)


def test_a_message_is_not_buried():
    said = template("experiment", merged(VALUES, at("experiment.data", "/data"))).stderr
    assert said.splitlines()[0].endswith(
        'experiment.data: "/data" is no s3://bucket/prefix. Pods of different nodes share nothing else: give one.'
    )


def test_phases_that_load_no_model_need_none():
    off = {"enabled": False}
    values = merged(
        VALUES, {"experiment": {"model": "/models/m"}, "phases": dict.fromkeys(("prepare", "pilot", "collect"), off)}
    )
    assert render("experiment", values)
    assert render("experiment", merged(values, FETCHED, {"phases": {"fetch": off}}))
