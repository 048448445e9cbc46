"""Every value of the experiment's chart: what it changes in the objects. A value that nothing looks at fails here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from chart_schema import read_values

from charts import (
    CHARTS,
    EXPERIMENT,
    FETCHED,
    MIRRORED,
    PHASES,
    at,
    container,
    job,
    jobs,
    merged,
    mounts,
    of_kind,
    one,
    pod,
    pod_template,
    render,
    variables,
)

if TYPE_CHECKING:
    from collections.abc import Callable


ON, OFF = True, False
Objects = list[dict[str, Any]]
QUEUE = {"queue": {"name": "gpu"}}
MONITORED = {"metrics": {"podMonitor": {"enabled": True}}}
CLAIM = {"modelCache": {"type": "persistentVolumeClaim", "claimName": "models"}}
HOST = {"modelCache": {"type": "hostPath", "hostPath": "/var/models"}}
OTHER_RESOURCES = {"requests": {"cpu": 0.5}, "limits": {"cpu": 2}}
TERM = {"key": "a", "operator": "Exists"}


@dataclass(frozen=True)
class Case:
    """A value, and what is true of the objects with it and not without it; `given` is there in both."""

    value: Any
    holds: Callable[[Objects], bool]
    given: dict[str, Any] = field(default_factory=dict)


def collect(objects: Objects) -> dict[str, Any]:
    return job(objects, "collect")


def in_container(name: str, expected: Any) -> Callable[[Objects], bool]:
    return lambda objects: container(collect(objects)).get(name) == expected


def in_pod(name: str, expected: Any) -> Callable[[Objects], bool]:
    return lambda objects: pod(collect(objects)).get(name) == expected


def in_env(name: str, expected: Any) -> Callable[[Objects], bool]:
    return lambda objects: variables(collect(objects)).get(name) == expected


def in_spec(name: str, expected: Any) -> Callable[[Objects], bool]:
    return lambda objects: one(objects, "SAEExperiment")["spec"].get(name) == expected


def in_store(name: str, expected: Any) -> Callable[[Objects], bool]:
    return lambda objects: one(objects, "SAEExperiment")["spec"]["store"].get(name) == expected


def cpus(item: dict[str, Any]) -> tuple[Any, Any]:
    resources = container(item)["resources"]
    return resources["requests"]["cpu"], resources["limits"]["cpu"]


def secret(name: str, key: str) -> dict[str, Any]:
    return {"secretKeyRef": {"name": name, "key": key}}


CASES: dict[str, Case] = {
    "experiment": Case(
        EXPERIMENT | {"tokens": 12345}, lambda o: '"tokens":12345' in one(o, "ConfigMap")["data"]["experiment.yaml"]
    ),
    "suspend": Case(ON, in_spec("suspend", ON)),
    "image.registry": Case("r.example:5000", in_container("image", "r.example:5000/kubesae-jobs:0.1.0")),
    "image.repository": Case("a/b", in_container("image", "a/b:0.1.0")),
    "image.tag": Case("2.0", in_container("image", "kubesae-jobs:2.0")),
    "image.digest": Case("sha256:" + "a" * 64, in_container("image", "kubesae-jobs@sha256:" + "a" * 64)),
    "image.pullPolicy": Case("Never", in_container("imagePullPolicy", "Never")),
    "imagePullSecrets": Case([{"name": "pull"}], in_pod("imagePullSecrets", [{"name": "pull"}])),
    "store.existingSecret": Case("s3", in_env("AWS_SECRET_ACCESS_KEY", secret("s3", "AWS_SECRET_ACCESS_KEY"))),
    "store.endpoint": Case("http://s3:9000", in_env("AWS_ENDPOINT_URL_S3", "http://s3:9000")),
    "store.region": Case("eu-north-1", in_env("AWS_REGION", "eu-north-1")),
    "store.caBundle.configMap": Case(
        "ca", lambda o: mounts(collect(o)).get("/etc/kubesae-ca", {}).get("configMap") == {"name": "ca"}
    ),
    "store.caBundle.key": Case(
        "own.pem", in_env("AWS_CA_BUNDLE", "/etc/kubesae-ca/own.pem"), {"store": {"caBundle": {"configMap": "ca"}}}
    ),
    "hub.existingSecret": Case("hub", in_env("HF_TOKEN", secret("hub", "HF_TOKEN"))),
    "hub.key": Case("t", in_env("HF_TOKEN", secret("hub", "t")), {"hub": {"existingSecret": "hub"}}),
    "hub.offline": Case(ON, in_env("HF_HUB_OFFLINE", "1")),
    "modelCache.type": Case(
        "hostPath", lambda o: "hostPath" in mounts(collect(o))["/models"], {"modelCache": {"hostPath": "/var/models"}}
    ),
    "modelCache.claimName": Case(
        "other",
        lambda o: mounts(collect(o))["/models"]["persistentVolumeClaim"] == {"claimName": "other"},
        CLAIM,
    ),
    "modelCache.hostPath": Case("/x", lambda o: mounts(collect(o))["/models"]["hostPath"]["path"] == "/x", HOST),
    "modelCache.sizeLimit": Case("7Gi", lambda o: mounts(collect(o))["/models"]["emptyDir"] == {"sizeLimit": "7Gi"}),
    "serviceAccount.create": Case(OFF, lambda o: not of_kind(o, "ServiceAccount")),
    "serviceAccount.name": Case("me", in_pod("serviceAccountName", "me")),
    "serviceAccount.annotations": Case(
        {"role": "arn"}, lambda o: one(o, "ServiceAccount")["metadata"].get("annotations") == {"role": "arn"}
    ),
    "operator.serviceAccount.name": Case(
        "op", lambda o: one(o, "RoleBinding")["subjects"][0]["name"] == "op", {"store": {"existingSecret": "s3"}}
    ),
    "operator.serviceAccount.namespace": Case(
        "ops", lambda o: one(o, "RoleBinding")["subjects"][0]["namespace"] == "ops", {"store": {"existingSecret": "s3"}}
    ),
    "queue.name": Case("gpu", in_spec("queueName", "gpu")),
    "queue.minParallelism": Case(
        2,
        lambda o: collect(o)["metadata"].get("annotations") == {"kueue.x-k8s.io/job-min-parallelism": "2"},
        QUEUE,
    ),
    "metrics.port": Case(
        9999,
        lambda o: (
            all(variables(job(o, p)).get("KUBESAE_METRICS_PORT") == "9999" for p in ("pilot", "collect", "train"))
            and {"name": "metrics", "containerPort": 9999} in container(job(o, "train"))["ports"]
            and {"ports": [{"protocol": "TCP", "port": 9999}]} in one(o, "NetworkPolicy")["spec"]["ingress"]
        ),
    ),
    "metrics.podMonitor.enabled": Case(ON, lambda o: bool(of_kind(o, "PodMonitor"))),
    "metrics.podMonitor.labels": Case(
        {"release": "p"}, lambda o: one(o, "PodMonitor")["metadata"]["labels"].get("release") == "p", MONITORED
    ),
    "metrics.podMonitor.interval": Case(
        "7s",
        lambda o: one(o, "PodMonitor")["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "interval": "7s"}],
        MONITORED,
    ),
    "networkPolicy.enabled": Case(OFF, lambda o: not of_kind(o, "NetworkPolicy")),
    "networkPolicy.extraEgress": Case([TERM], lambda o: TERM in one(o, "NetworkPolicy")["spec"]["egress"]),
    "networkPolicy.extraIngress": Case([TERM], lambda o: TERM in one(o, "NetworkPolicy")["spec"]["ingress"]),
    "podSecurityContext": Case({"runAsUser": 7}, lambda o: pod(collect(o))["securityContext"]["runAsUser"] == 7),
    "securityContext": Case({"runAsUser": 7}, lambda o: container(collect(o))["securityContext"]["runAsUser"] == 7),
    "nameOverride": Case("n", lambda o: collect(o)["metadata"]["labels"]["app.kubernetes.io/name"] == "n"),
    "fullnameOverride": Case("other", lambda o: one(o, "SAEExperiment")["metadata"]["name"] == "other"),
    "commonLabels": Case(
        {"team": "x"},
        lambda o: all(
            item["metadata"]["labels"].get("team") == "x" for item in [*o, *(pod_template(j) for j in jobs(o, "train"))]
        ),
    ),
    "logFormat": Case("json", lambda o: container(collect(o))["args"][:3] == ["--log-format", "json", "collect"]),
    "test.resources": Case(OTHER_RESOURCES, lambda o: cpus(one(o, "Pod", "store")) == ("0.5", "2")),
    "phases.fetch.source": Case("x/y", lambda o: "x/y" in pod(collect(o))["initContainers"][0]["args"], FETCHED),
    "phases.fetch.mirror": Case(
        "s3://b/m",
        lambda o: bool(jobs(o, "fetch")) and "s3://b/m" in pod(collect(o))["initContainers"][0]["args"],
        FETCHED,
    ),
    "phases.fetch.truncate": Case(
        True,  # noqa: FBT003 - the value
        lambda o: container(jobs(o, "fetch")[0])["args"][0] == "truncate",
        merged(FETCHED, at("phases.fetch.mirror", "s3://b/m")),
    ),
    "phases.fetch.withHead": Case(
        True,  # noqa: FBT003 - the value
        lambda o: container(jobs(o, "fetch")[0])["args"][-1] == "--with-head",
        merged(FETCHED, {"phases": {"fetch": {"mirror": "s3://b/m", "truncate": True}}}),
    ),
    "phases.collect.parallelism": Case(3, lambda o: collect(o)["spec"]["parallelism"] == 3),
    "phases.collect.backoffLimitPerIndex": Case(3, lambda o: collect(o)["spec"]["backoffLimitPerIndex"] == 3),
    "phases.collect.maxFailedIndexes": Case(1, lambda o: collect(o)["spec"].get("maxFailedIndexes") == 1),
    "phases.prepare.workers": Case(
        3,
        lambda o: (
            job(o, "prepare")["spec"]["completions"] == job(o, "prepare")["spec"]["parallelism"] == 3
            and job(o, "prepare")["spec"]["completionMode"] == "Indexed"
            and container(job(o, "prepare"))["args"] == ["prepare", "--index", "$(JOB_COMPLETION_INDEX)", "--of", "3"]
        ),
    ),
    "phases.interpret.model": Case(
        True,  # noqa: FBT003 - the value
        lambda o: (
            [one["name"] for one in job(o, "interpret")["spec"]["template"]["spec"].get("initContainers", ())]
            == ["fetch"]
            and any(mount["mountPath"] == "/models" for mount in container(job(o, "interpret"))["volumeMounts"])
        ),
        FETCHED,
    ),
    "phases.interpret.workers": Case(
        3,
        lambda o: (
            job(o, "interpret")["spec"]["completions"] == job(o, "interpret")["spec"]["parallelism"] == 3
            and job(o, "interpret")["spec"]["completionMode"] == "Indexed"
            and container(job(o, "interpret"))["args"]
            == ["interpret", "--all", "--index", "$(JOB_COMPLETION_INDEX)", "--of", "3"]
        ),
    ),
    "phases.verify.workers": Case(
        3,
        lambda o: (
            job(o, "verify")["spec"]["completions"] == job(o, "verify")["spec"]["parallelism"] == 3
            and container(job(o, "verify"))["args"][-2:] == ["--of", "3"]
        ),
    ),
    "phases.train.backend": Case("job", lambda o: job(o, "train")["kind"] == "Job"),
    "phases.train.jobs": Case(
        "each",
        lambda o: (
            [container(j)["args"] for j in jobs(o, "train")]
            == [["train-launch", "--sae-name", "a"], ["train-launch", "--sae-name", "b"]]
        ),
        {"experiment": {"sae": [{"name": "a"}, {"name": "b"}]}},
    ),
    "phases.train.workers": Case(
        2, lambda o: job(o, "train")["spec"]["pytorchReplicaSpecs"].get("Worker", {}).get("replicas") == 2
    ),
    "phases.train.minWorkers": Case(
        1,
        lambda o: job(o, "train")["spec"]["elasticPolicy"]["minReplicas"] == 1,
        {"phases": {"train": {"workers": 2}}},
    ),
    "phases.train.gpus": Case(4, lambda o: job(o, "train")["spec"]["nprocPerNode"] == "4"),
    "phases.train.featureShards": Case(
        2,
        lambda o: container(job(o, "train"))["args"] == ["train-launch", "--feature-shards", "2"],
        {"phases": {"train": {"gpus": 2}}},
    ),
    "phases.train.backoffLimit": Case(3, lambda o: job(o, "train")["spec"]["runPolicy"]["backoffLimit"] == 3),
}

# What every phase has, and what a phase may set for itself: the same look at its Pod.
POD_VALUES: dict[str, tuple[Any, Callable[[dict[str, Any]], bool]]] = {
    "nodeSelector": ({"a": "b"}, lambda j: pod(j).get("nodeSelector") == {"a": "b"}),
    "tolerations": ([TERM], lambda j: pod(j).get("tolerations") == [TERM]),
    "affinity": ({"nodeAffinity": {}}, lambda j: pod(j).get("affinity") == {"nodeAffinity": {}}),
    "topologySpreadConstraints": ([TERM], lambda j: pod(j).get("topologySpreadConstraints") == [TERM]),
    "priorityClassName": ("high", lambda j: pod(j).get("priorityClassName") == "high"),
    "podAnnotations": ({"n": "1"}, lambda j: pod_template(j)["metadata"]["annotations"].get("n") == "1"),
    "extraEnv": ([{"name": "HOME", "value": "/x"}], lambda j: variables(j)["HOME"] == "/x"),
    "extraVolumes": ([{"name": "v", "emptyDir": {}}], lambda j: {"name": "v", "emptyDir": {}} in pod(j)["volumes"]),
    "extraVolumeMounts": (
        [{"name": "scratch", "mountPath": "/v"}],
        lambda j: mounts(j).get("/v", {}).get("name") == "scratch",
    ),
    "scratch": ("3Gi", lambda j: mounts(j)["/scratch"]["emptyDir"] == {"sizeLimit": "3Gi"}),
    "sharedMemory": (
        "5Gi",
        lambda j: mounts(j).get("/dev/shm", {}).get("emptyDir") == {"medium": "Memory", "sizeLimit": "5Gi"},
    ),
    "terminationGracePeriodSeconds": (99, lambda j: pod(j)["terminationGracePeriodSeconds"] == 99),
}
OWN_VALUES: dict[str, tuple[Any, Callable[[dict[str, Any]], bool]]] = {
    "resources": (OTHER_RESOURCES, lambda j: cpus(j) == ("0.5", "2")),
    "gpus": (
        6,
        lambda j: (
            container(j)["resources"]["limits"].get("nvidia.com/gpu") == "6"
            and container(j)["resources"]["requests"].get("nvidia.com/gpu") == "6"
        ),
    ),
    "backoffLimit": (3, lambda j: j["spec"].get("backoffLimit") == 3),
    "suspend": (True, lambda j: j["metadata"].get("annotations") == {"kubesae.dev/hold": "true"}),
}


def documented() -> dict[str, Any]:
    text = (CHARTS / "experiment" / "values.yaml").read_text(encoding="utf-8")
    return {".".join(value.path): value.default for value in read_values(text)}


def seen(path: str, case: Case) -> dict[str, bool]:
    """Say whether the look sees something without the value, and with it."""
    base = merged({"experiment": EXPERIMENT}, case.given)
    given = merged(base, at(path, case.value))
    return {
        "without": bool(case.holds(render("experiment", base))),
        "with": bool(case.holds(render("experiment", given))),
    }


ONLY_WITH_IT = {"without": False, "with": True}


@pytest.mark.parametrize("path", CASES)
def test_a_value_changes_what_it_says(path):
    assert seen(path, CASES[path]) == ONLY_WITH_IT


PHASE_CASES = {
    f"phases.{phase}.{name}": (phase, value, look)
    for phase in PHASES
    for name, (value, look) in {**POD_VALUES, **OWN_VALUES}.items()
    if (name in POD_VALUES or f"phases.{phase}.{name}" in documented()) and f"phases.{phase}.{name}" not in CASES
}


@pytest.mark.parametrize("path", PHASE_CASES)
def test_a_value_of_a_phase_changes_that_phase(path):
    phase, value, look = PHASE_CASES[path]
    assert seen(path, Case(value, lambda objects: look(job(objects, phase)), MIRRORED)) == ONLY_WITH_IT


@pytest.mark.parametrize("name", POD_VALUES)
def test_a_value_of_all_phases_changes_every_phase_that_does_not_set_it(name):
    value, look = POD_VALUES[name]
    chosen = [phase for phase in PHASES if f"phases.{phase}.{name}" not in documented()]
    base = merged({"experiment": EXPERIMENT}, MIRRORED)
    before, after = render("experiment", base), render("experiment", merged(base, at(f"phases.all.{name}", value)))
    assert [look(job(before, phase)) for phase in chosen] == [False] * len(chosen)
    assert [look(job(after, phase)) for phase in chosen] == [True] * len(chosen)


@pytest.mark.parametrize("phase", PHASES)
def test_a_phase_that_is_switched_off_has_no_job_and_is_no_phase_of_the_experiment(phase):
    values = merged({"experiment": EXPERIMENT}, MIRRORED, at(f"phases.{phase}.enabled", OFF))
    if phase == "fetch":  # then the model has to come from elsewhere
        values = merged(values, CLAIM, at("phases.fetch.mirror", ""))
    objects = render("experiment", values)
    rest = [other for other in PHASES if other != phase]
    assert one(objects, "SAEExperiment")["spec"]["phases"] == rest
    assert [other for other in PHASES if jobs(objects, other)] == rest


def test_every_value_has_a_case():
    seen = {*CASES, *PHASE_CASES, *(f"phases.all.{name}" for name in POD_VALUES)}
    seen |= {f"phases.{phase}.enabled" for phase in PHASES}
    assert sorted(set(documented()) - seen) == []


def test_a_phases_value_replaces_that_of_all_phases_even_by_nothing():
    values = {
        "experiment": EXPERIMENT,
        "phases": {"all": {"nodeSelector": {"a": "b"}, "tolerations": [TERM]}, "verify": {"nodeSelector": {"c": "d"}}},
    }
    objects = render("experiment", merged(values, at("phases.train.tolerations", [])))
    assert pod(job(objects, "verify"))["nodeSelector"] == {"c": "d"}
    assert pod(collect(objects))["nodeSelector"] == {"a": "b"}
    assert "tolerations" not in pod(job(objects, "train"))


def test_a_variable_is_named_once():
    own = [{"name": "AWS_REGION", "value": "mine"}, {"name": "OTHER", "value": "1"}]
    values = {"experiment": EXPERIMENT, "store": {"region": "theirs"}, "phases": {"all": {"extraEnv": own}}}
    names = [entry["name"] for entry in container(collect(render("experiment", values)))["env"]]
    assert sorted(names) == sorted(set(names))
    assert names[-2:] == ["AWS_REGION", "OTHER"]


def test_the_operator_reads_the_secret_and_the_certificates_by_name_and_nothing_else():
    values = {"experiment": EXPERIMENT, "store": {"existingSecret": "s3", "caBundle": {"configMap": "ca"}}}
    objects = render("experiment", values)
    rules = one(objects, "Role")["rules"]
    assert rules == [
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["s3"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["ca"], "verbs": ["get"]},
    ]
    assert one(objects, "SAEExperiment")["spec"]["store"] == {
        "secretName": "s3",
        "endpoint": "",
        "region": "",
        "caConfigMap": {"name": "ca", "key": "ca.crt"},
    }
    assert not of_kind(render("experiment", {"experiment": EXPERIMENT}), "Role")


@pytest.mark.parametrize(
    ("endpoint", "port"), [("http://s3:9000", 9000), ("https://s3.local:9443/", 9443), ("http://s3.local", 80)]
)
def test_the_network_policy_opens_the_port_of_the_s3_server(endpoint, port):
    objects = render("experiment", {"experiment": EXPERIMENT, "store": {"endpoint": endpoint}})
    ports = [
        entry["port"] for rule in one(objects, "NetworkPolicy")["spec"]["egress"] for entry in rule.get("ports", [])
    ]
    assert ports == [53, 53, 443, port]


def test_without_metrics_no_port_is_open():
    objects = render("experiment", {"experiment": EXPERIMENT, "metrics": {"port": 0}})
    assert "ports" not in container(collect(objects))
    assert "KUBESAE_METRICS_PORT" not in variables(collect(objects))
    assert len(one(objects, "NetworkPolicy")["spec"]["ingress"]) == 1
