"""The jobs of an experiment: names, what happens to Pods that fail, the two back-ends of training."""

from __future__ import annotations

import pytest

from charts import (
    EXPERIMENT,
    MIRRORED,
    PHASES,
    at,
    container,
    job,
    jobs,
    merged,
    of_kind,
    one,
    pod,
    pod_template,
    render,
    variables,
)

VALUES = merged({"experiment": EXPERIMENT}, MIRRORED)
LONG = "a" * 33
SAES = [{"name": f"layer-003-topk-4608-with-a-rather-long-name-to-tell-it-apart-{i}"} for i in range(2)]


def name_of(values, phase):
    return job(render("experiment", values), phase)["metadata"]["name"]


def test_every_job_waits_to_be_released():
    objects = render("experiment", VALUES)
    for phase in PHASES:
        spec = job(objects, phase)["spec"]
        assert spec.get("runPolicy", spec)["suspend"] is True


@pytest.mark.parametrize("value", [True, False])
def test_a_values_file_can_hold_a_phase_back_or_start_it(value):
    item = job(render("experiment", merged(VALUES, at("phases.collect.suspend", value))), "collect")
    assert ("suspend" in item["spec"]) is value
    assert item["metadata"].get("annotations") == ({"kubesae.dev/hold": "true"} if value else None)


def test_a_phase_started_by_the_values_is_handed_to_the_queue():
    values = merged(VALUES, {"queue": {"name": "gpu"}}, {"phases": {"train": {"suspend": False}}})
    objects = render("experiment", values)
    train = job(objects, "train")
    assert train["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert train["spec"]["runPolicy"]["suspend"] is True  # until Kueue admits it
    assert "kueue.x-k8s.io/queue-name" not in job(objects, "collect")["metadata"]["labels"]


def test_a_mistake_ends_a_job_at_once_and_an_interruption_does_not_count():
    objects = render("experiment", merged(VALUES, at("phases.train.backend", "job")))
    for phase in PHASES:
        spec = job(objects, phase)["spec"]
        assert spec["podReplacementPolicy"] == "Failed"
        assert spec["podFailurePolicy"]["rules"] == [
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2]}},
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [75]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]
        assert pod(job(objects, phase))["restartPolicy"] == "Never"


def test_collection_has_an_index_a_shard():
    values = merged(VALUES, at("experiment.num_shards", 7))
    item = job(render("experiment", values), "collect")
    assert item["spec"]["completions"] == item["spec"]["parallelism"] == 7
    assert item["spec"]["completionMode"] == "Indexed"
    assert container(item)["args"] == ["collect", "--index", "$(JOB_COMPLETION_INDEX)", "--of", "7"]
    assert container(item)["resources"]["limits"]["nvidia.com/gpu"] == "2"
    few = job(render("experiment", merged(values, at("phases.collect.parallelism", 99))), "collect")
    assert few["spec"]["parallelism"] == 7


def test_each_phase_runs_its_command():
    objects = render("experiment", VALUES)
    assert {phase: container(job(objects, phase))["args"] for phase in PHASES} == {
        "fetch": ["fetch", "--from", "organisation/m", "--to", "s3://b/m"],
        "prepare": ["prepare"],
        "pilot": ["pilot"],
        "collect": ["collect", "--index", "$(JOB_COMPLETION_INDEX)", "--of", "4"],
        "verify": ["verify"],
        "train": ["train-launch"],
        "interpret": ["interpret", "--all"],
    }
    assert all(container(job(objects, phase))["command"] == ["kubesae"] for phase in PHASES)


def test_a_truncated_model_is_cut_once_and_taken_as_it_is_from_the_mirror():
    values = merged(
        VALUES, {"experiment": {"layers": [3, 7, 12], "sae": [{"layer": 12}]}, "phases": {"fetch": {"truncate": True}}}
    )
    objects = render("experiment", values)
    cut = ["truncate", "--from", "organisation/m", "--to", "s3://b/m", "--layers", "12"]
    assert container(job(objects, "fetch"))["args"] == cut
    (init,) = job(objects, "collect")["spec"]["template"]["spec"]["initContainers"]
    assert init["args"] == ["fetch", "--from", "s3://b/m", "--to", "/models/m"]
    objects = render("experiment", merged(values, at("phases.fetch.mirror", "")))
    (init,) = job(objects, "collect")["spec"]["template"]["spec"]["initContainers"]
    assert init["args"] == [*cut[:4], "/models/m", *cut[5:]]


def test_names_are_valid_for_what_controllers_append_to_them():
    values = merged(VALUES, {"experiment": {"sae": SAES}, "phases": {"train": {"jobs": "each"}}})
    objects = render("experiment", values, name=LONG)
    names = [item["metadata"]["name"] for phase in PHASES for item in jobs(objects, phase)]
    assert len(set(names)) == 8
    assert all(len(f"{name}-worker-999") <= 63 for name in names)
    assert all(name.startswith(f"{LONG}-") for name in names)


def test_a_job_gets_another_name_exactly_when_its_pods_change():
    before = {phase: name_of(VALUES, phase) for phase in PHASES}

    def changed(**values):
        after = render("experiment", merged(VALUES, *(at(path.replace("__", "."), v) for path, v in values.items())))
        return {phase for phase in PHASES if job(after, phase)["metadata"]["name"] != before[phase]}

    assert changed(image__tag="other") == set(PHASES)
    assert changed(phases__verify__resources__limits__cpu="3") == {"verify"}
    assert changed(phases__collect__parallelism=1, phases__train__suspend=True) == set()
    assert changed(phases__train__backoffLimit=9) == set()
    assert changed(phases__collect__backoffLimitPerIndex=9) == {"collect"}
    assert changed(experiment__collect__forward_batch=2) == {"pilot", "collect"}
    assert changed(experiment__verify__mode="full") == {"verify"}
    assert changed(experiment__sae=[{"name": "first"}, {"name": "second"}]) == {"train", "interpret"}
    assert changed(experiment__interpret__top_k=5) == {"interpret"}
    assert changed(experiment__seed=1) == set(PHASES)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 1e9, "seed": 0},
        {"collect": {"queue": 2}, "verify": {"mode": "ledger"}, "interpret": {}},
        {"sae": [EXPERIMENT["sae"][0] | {"l1_coeff": 1e-3, "epochs": 3}]},
        {"corpora": [EXPERIMENT["corpora"][0] | {"weight": 1, "pool": 1.0}]},
    ],
    ids=str,
)
def test_a_default_written_out_leaves_every_job(changes):
    written_out = merged(VALUES, {"experiment": changes})
    assert {name_of(written_out, phase) for phase in PHASES} == {name_of(VALUES, phase) for phase in PHASES}


def test_a_job_an_sae_changes_only_with_its_own_sae():
    def names(*saes):
        values = merged(VALUES, {"experiment": {"sae": list(saes)}, "phases": {"train": {"jobs": "each"}}})
        return {
            item["metadata"]["labels"]["kubesae.dev/sae"]: item["metadata"]["name"]
            for item in jobs(render("experiment", values), "train")
        }

    one_sae, two = names({"name": "a"}), names({"name": "a"}, {"name": "b", "lr": 1e-3})
    assert set(two) == {"a", "b"}
    assert one_sae["a"] == two["a"]


def test_nothing_in_a_pod_changes_with_the_charts_version():
    for phase in PHASES:
        labels = pod_template(job(render("experiment", VALUES), phase))["metadata"]["labels"]
        assert not {"helm.sh/chart", "app.kubernetes.io/version", "app.kubernetes.io/managed-by"} & set(labels)
        assert (labels["kubesae.dev/experiment"], labels["kubesae.dev/phase"]) == ("exp", phase)


def test_one_pod_that_trains_is_a_master_and_several_are_elastic_workers():
    single = job(render("experiment", VALUES), "train")["spec"]
    assert set(single["pytorchReplicaSpecs"]) == {"Master"}
    assert "elasticPolicy" not in single
    several = job(render("experiment", merged(VALUES, at("phases.train.workers", 3))), "train")["spec"]
    assert set(several["pytorchReplicaSpecs"]) == {"Worker"}
    assert several["elasticPolicy"] == {"minReplicas": 3, "maxReplicas": 3, "rdzvBackend": "c10d", "maxRestarts": 10}
    for spec in (single, several):
        (replicas,) = spec["pytorchReplicaSpecs"].values()
        assert replicas["restartPolicy"] == "ExitCode"
        assert spec["runPolicy"]["cleanPodPolicy"] == "Running"
        (trainer,) = replicas["template"]["spec"]["containers"]
        assert trainer["name"] == "pytorch"
        assert trainer["ports"][0] == {"name": "pytorchjob-port", "containerPort": 23456}
        assert {"name": "KUBESAE_TRAIN_BACKEND", "value": "pytorchjob"} in trainer["env"]


def test_a_plain_job_gets_the_variables_that_a_pytorchjob_would_give():
    values = merged(VALUES, {"phases": {"train": {"backend": "job", "workers": 3, "minWorkers": 2, "gpus": 4}}})
    objects = render("experiment", values)
    item = job(objects, "train")
    assert (item["kind"], item["spec"]["completions"], item["spec"]["parallelism"]) == ("Job", 3, 3)
    found = variables(item)
    assert found["KUBESAE_TRAIN_BACKEND"] == "job"
    assert found["PET_NNODES"] == "2:3"
    assert found["PET_NPROC_PER_NODE"] == "4"
    assert found["PET_RDZV_ENDPOINT"] == "$(JOB_NAME)-0.exp-train:23456"
    assert found["JOB_NAME"] == {"fieldRef": {"fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"}}
    assert list(found).index("JOB_NAME") < list(found).index("PET_RDZV_ENDPOINT")
    service = one(objects, "Service")
    assert service["metadata"]["name"] == pod(item)["subdomain"] == "exp-train"
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"].items() <= pod_template(item)["metadata"]["labels"].items()


def test_one_pod_of_a_plain_job_needs_no_service():
    objects = render("experiment", merged(VALUES, at("phases.train.backend", "job")))
    assert not of_kind(objects, "Service")
    assert variables(job(objects, "train"))["PET_NNODES"] == "1"
