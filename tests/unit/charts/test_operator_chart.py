"""The operator's chart: every value changes what it says, the CRD stays, and access is as small as it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from chart_schema import read_values

from charts import (
    CHARTS,
    ROOT,
    at,
    container,
    helm,
    merged,
    mounts,
    of_kind,
    one,
    pod,
    pod_template,
    render,
    template,
    variables,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ON, OFF = True, False
Objects = list[dict[str, Any]]
MONITORED = {"metrics": {"serviceMonitor": {"enabled": True}}}
RULE = {"key": "a", "operator": "Exists"}


def deployment(objects: Objects) -> dict[str, Any]:
    return one(objects, "Deployment")


def in_container(name: str, expected: Any) -> Callable[[Objects], bool]:
    return lambda objects: container(deployment(objects)).get(name) == expected


def in_pod(name: str, expected: Any) -> Callable[[Objects], bool]:
    return lambda objects: pod(deployment(objects)).get(name) == expected


# A value; what is true of the objects with it and not without it; what else is set in both.
CASES: dict[str, tuple[Any, Callable[[Objects], bool], dict[str, Any]]] = {
    "replicas": (3, lambda o: deployment(o)["spec"]["replicas"] == 3, {}),
    "watchNamespace": (
        "science",
        lambda o: "--namespace=science" in container(deployment(o))["args"] and not of_kind(o, "ClusterRole"),
        {},
    ),
    "crds.enabled": (OFF, lambda o: not of_kind(o, "CustomResourceDefinition"), {}),
    "crds.keep": (OFF, lambda o: "annotations" not in one(o, "CustomResourceDefinition")["metadata"], {}),
    "image.registry": ("r.example", in_container("image", "r.example/kubesae-operator:0.1.0"), {}),
    "image.repository": ("a/b", in_container("image", "a/b:0.1.0"), {}),
    "image.tag": ("2.0", in_container("image", "kubesae-operator:2.0"), {}),
    "image.digest": (
        "sha256:" + "a" * 64,
        lambda o: (
            in_container("image", "kubesae-operator@sha256:" + "a" * 64)(o)
            and in_container("imagePullPolicy", "IfNotPresent")(o)
        ),
        {},
    ),
    "image.pullPolicy": ("Never", in_container("imagePullPolicy", "Never"), {}),
    "imagePullSecrets": ([{"name": "pull"}], in_pod("imagePullSecrets", [{"name": "pull"}]), {}),
    "store.existingSecret": (
        "s3",
        lambda o: (
            variables(deployment(o)).get("AWS_ACCESS_KEY_ID")
            == {"secretKeyRef": {"name": "s3", "key": "AWS_ACCESS_KEY_ID"}}
        ),
        {},
    ),
    "serviceAccount.create": (OFF, lambda o: not of_kind(o, "ServiceAccount"), {}),
    "serviceAccount.name": (
        "me",
        lambda o: (
            pod(deployment(o))["serviceAccountName"] == "me"
            and one(o, "ServiceAccount")["metadata"]["name"] == "me"
            and all(binding["subjects"][0]["name"] == "me" for binding in of_kind(o, "RoleBinding"))
            and one(o, "ClusterRoleBinding")["subjects"][0]["name"] == "me"
        ),
        {},
    ),
    "serviceAccount.annotations": (
        {"role": "arn"},
        lambda o: one(o, "ServiceAccount")["metadata"].get("annotations") == {"role": "arn"},
        {},
    ),
    "metrics.port": (
        9999,
        lambda o: (
            "--metrics-port=9999" in container(deployment(o))["args"]
            and container(deployment(o))["ports"] == [{"name": "metrics", "containerPort": 9999}]
            and one(o, "Service")["spec"]["ports"][0]["port"] == 9999
        ),
        {},
    ),
    "metrics.serviceMonitor.enabled": (ON, lambda o: bool(of_kind(o, "ServiceMonitor")), {}),
    "metrics.serviceMonitor.labels": (
        {"release": "p"},
        lambda o: one(o, "ServiceMonitor")["metadata"]["labels"].get("release") == "p",
        MONITORED,
    ),
    "metrics.serviceMonitor.interval": (
        "7s",
        lambda o: one(o, "ServiceMonitor")["spec"]["endpoints"] == [{"port": "metrics", "interval": "7s"}],
        MONITORED,
    ),
    "networkPolicy.enabled": (OFF, lambda o: not of_kind(o, "NetworkPolicy"), {}),
    "networkPolicy.egress": ([RULE], lambda o: one(o, "NetworkPolicy")["spec"]["egress"] == [RULE], {}),
    "podDisruptionBudget.enabled": (OFF, lambda o: not of_kind(o, "PodDisruptionBudget"), {}),
    "resources": (
        {"limits": {"cpu": 2}},
        lambda o: container(deployment(o))["resources"]["limits"]["cpu"] == "2",
        {},
    ),
    "podSecurityContext": ({"runAsUser": 7}, lambda o: pod(deployment(o))["securityContext"]["runAsUser"] == 7, {}),
    "securityContext": (
        {"runAsUser": 7},
        lambda o: container(deployment(o))["securityContext"]["runAsUser"] == 7,
        {},
    ),
    "nodeSelector": ({"a": "b"}, in_pod("nodeSelector", {"a": "b"}), {}),
    "tolerations": ([RULE], in_pod("tolerations", [RULE]), {}),
    "affinity": ({"nodeAffinity": {}}, in_pod("affinity", {"nodeAffinity": {}}), {}),
    "topologySpreadConstraints": ([RULE], in_pod("topologySpreadConstraints", [RULE]), {}),
    "priorityClassName": ("high", in_pod("priorityClassName", "high"), {}),
    "podAnnotations": (
        {"n": "1"},
        lambda o: pod_template(deployment(o))["metadata"].get("annotations") == {"n": "1"},
        {},
    ),
    "extraEnv": ([{"name": "A", "value": "b"}], lambda o: variables(deployment(o)).get("A") == "b", {}),
    "extraVolumes": (
        [{"name": "v", "emptyDir": {}}],
        lambda o: {"name": "v", "emptyDir": {}} in pod(deployment(o))["volumes"],
        {},
    ),
    "extraVolumeMounts": (
        [{"name": "scratch", "mountPath": "/v"}],
        lambda o: mounts(deployment(o)).get("/v", {}).get("name") == "scratch",
        {},
    ),
    "logFormat": ("json", lambda o: "--log-format=json" in container(deployment(o))["args"], {}),
    "nameOverride": (
        "n",
        lambda o: deployment(o)["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] == "n",
        {},
    ),
    "fullnameOverride": ("other", lambda o: deployment(o)["metadata"]["name"] == "other", {}),
    "commonLabels": ({"team": "x"}, lambda o: all(i["metadata"]["labels"].get("team") == "x" for i in o), {}),
}


@pytest.mark.parametrize("path", CASES)
def test_a_value_changes_what_it_says(path):
    value, holds, given = CASES[path]
    assert not holds(render("operator", given)), "the look sees it without the value, too"
    assert holds(render("operator", merged(given, at(path, value))))


def test_every_value_has_a_case():
    text = (CHARTS / "operator" / "values.yaml").read_text(encoding="utf-8")
    assert [path for value in read_values(text) if (path := ".".join(value.path)) not in CASES] == []


def test_it_passes_lint():
    ran = helm("lint", "--strict", str(CHARTS / "operator"))
    assert ran.returncode == 0, ran.stdout


def test_the_crd_is_the_operators_and_is_kept_when_the_chart_is_uninstalled():
    crd = one(render("operator", {}), "CustomResourceDefinition")
    generated = yaml.safe_load((ROOT / "k8s" / "crd" / "saeexperiments.yaml").read_text(encoding="utf-8"))
    assert crd["spec"] == generated["spec"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_its_rights_name_no_secret_and_hold_no_wildcard():
    objects = render("operator", {})
    rules = [rule for kind in ("ClusterRole", "Role") for role in of_kind(objects, kind) for rule in role["rules"]]
    assert not any("*" in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]] for rule in rules)
    resources = {resource for rule in rules for resource in rule["resources"]}
    assert not resources & {"secrets", "configmaps", "nodes", "pods/exec", "pods/log"}
    assert not any({"delete", "deletecollection", "escalate", "bind"} & set(rule["verbs"]) for rule in rules)


def test_one_namespace_is_watched_with_rights_in_that_one_alone():
    objects = render("operator", {"watchNamespace": "science"})
    assert not of_kind(objects, "ClusterRole") + of_kind(objects, "ClusterRoleBinding")
    found = {role["metadata"]["namespace"] for role in of_kind(objects, "Role")}
    assert found == {"science", "space"}
    assert {binding["subjects"][0]["namespace"] for binding in of_kind(objects, "RoleBinding")} == {"space"}


def test_a_budget_keeps_one_of_several_and_blocks_no_drain_of_a_single_one():
    assert one(render("operator", {}), "PodDisruptionBudget")["spec"]["minAvailable"] == 1
    assert not of_kind(render("operator", {"replicas": 1}), "PodDisruptionBudget")


def test_the_probes_ask_the_metrics_port_and_give_a_watch_time_to_be_heard():
    found = container(deployment(render("operator", {})))
    for name, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz"), ("startupProbe", "/healthz")):
        assert found[name]["httpGet"] == {"path": path, "port": "metrics"}
    liveness = found["livenessProbe"]
    assert liveness["periodSeconds"] * liveness.get("failureThreshold", 3) >= 30


def test_an_unknown_value_is_refused_by_name():
    ran = template("operator", {"replicaCount": 2})
    assert ran.returncode != 0
    assert "'replicaCount' not allowed" in ran.stderr


@pytest.mark.parametrize(
    ("release", "name"), [("kubesae-operator", "kubesae-operator"), ("op", "op-kubesae-operator"), ("a" * 53, "a" * 52)]
)
def test_its_name_is_short_enough_for_its_pods(release, name):
    assert deployment(render("operator", {}, name=release))["metadata"]["name"] == name
