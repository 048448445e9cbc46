"""What is true of every Pod that the charts make: the restricted Pod Security level, and more."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from charts import (
    EXPERIMENT,
    FETCHED,
    MIRRORED,
    PRESETS,
    container,
    job,
    merged,
    of_kind,
    pod_templates,
    render,
    variables,
)
from kubesae.experiment import parse_yaml

CLAIM = {"modelCache": {"type": "persistentVolumeClaim", "claimName": "models"}}
FULL = merged(
    {"experiment": EXPERIMENT},
    MIRRORED,
    {
        "store": {"existingSecret": "s3", "endpoint": "http://s3:9000", "caBundle": {"configMap": "ca"}},
        "hub": {"existingSecret": "hub"},
    },
)
SHAPES = {
    "defaults": {"experiment": EXPERIMENT},
    "everything": FULL,
    "job, workers": merged(FULL, {"phases": {"train": {"backend": "job", "workers": 2}}}),
    "elastic": merged(FULL, {"phases": {"train": {"workers": 3, "minWorkers": 1}}}),
    "claim": merged(FULL, {"phases": {"fetch": {"mirror": ""}}}, CLAIM),
}
ALLOWED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "downwardAPI"}


def templates(shape: str) -> dict[str, dict[str, Any]]:
    if shape == "operator":
        return pod_templates(render("operator", {}))
    return pod_templates(render("experiment", SHAPES[shape]))


@pytest.mark.parametrize("shape", [*SHAPES, "operator"])
def test_pods_keep_to_the_restricted_level_and_to_what_a_careful_cluster_asks(shape):
    found = templates(shape)
    assert found
    for template in found.values():
        keeps_to_the_level(template)


def keeps_to_the_level(template: dict[str, Any]) -> None:
    spec = template["spec"]
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert min(context["runAsUser"], context["runAsGroup"], context["fsGroup"]) > 10_000
    assert not any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} <= ALLOWED_VOLUMES
    assert all("sizeLimit" in volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume)
    assert spec["enableServiceLinks"] is False
    for each in [*spec["containers"], *spec.get("initContainers", [])]:
        own = each["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["privileged"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert min(own["runAsUser"], own["runAsGroup"]) > 10_000
        for kind in ("requests", "limits"):
            amounts = each["resources"][kind]
            assert {"cpu", "memory", "ephemeral-storage"} <= set(amounts)
            assert all(isinstance(amount, str) for amount in amounts.values())
        assert all(isinstance(entry.get("value", ""), str) for entry in each.get("env", []))
        assert all(isinstance(argument, str) for argument in each["args"])
        assert each["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_pods_of_an_experiment_get_no_token_and_no_secret_but_by_reference():
    objects = render("experiment", FULL)
    for template in pod_templates(objects).values():
        assert template["spec"]["automountServiceAccountToken"] is False
        for each in [*template["spec"]["containers"], *template["spec"].get("initContainers", [])]:
            named = {entry["name"]: entry for entry in each["env"]}
            secrets = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN")
            assert all("secretKeyRef" in named[name]["valueFrom"] for name in secrets)
            assert named["AWS_SESSION_TOKEN"]["valueFrom"]["secretKeyRef"]["optional"] is True
    assert all(account["automountServiceAccountToken"] is False for account in of_kind(objects, "ServiceAccount"))


def test_the_pods_that_load_the_model_fetch_it_first_and_the_others_do_not_mount_it():
    for phase in ("prepare", "pilot", "collect"):
        spec = job(render("experiment", merged({"experiment": EXPERIMENT}, FETCHED)), phase)["spec"]["template"]["spec"]
        (fetch,) = spec["initContainers"]
        assert fetch["args"] == ["fetch", "--from", "organisation/m", "--to", "/models/m"]
        assert "nvidia.com/gpu" not in fetch["resources"]["limits"]
        assert {mount["mountPath"] for mount in fetch["volumeMounts"]} >= {"/models", "/scratch", "/tmp"}
    for phase in ("verify", "train", "interpret"):
        item = job(render("experiment", FULL), phase)
        assert "/models" not in {mount["mountPath"] for mount in container(item)["volumeMounts"]}


def test_a_claim_is_filled_by_a_job_and_then_only_read():
    objects = render("experiment", SHAPES["claim"])
    assert container(job(objects, "fetch"))["args"] == ["fetch", "--from", "organisation/m", "--to", "/models/m"]
    mounted = {
        phase: next(mount for mount in container(job(objects, phase))["volumeMounts"] if mount["name"] == "models")
        for phase in ("fetch", "prepare", "pilot", "collect")
    }
    assert {phase: mount.get("readOnly", False) for phase, mount in mounted.items()} == {
        "fetch": False,
        "prepare": True,
        "pilot": True,
        "collect": True,
    }
    assert not any("initContainers" in template["spec"] for template in pod_templates(objects).values())


def test_a_shared_folder_holds_the_hubs_cache_where_nothing_is_fetched():
    values = {"experiment": EXPERIMENT}
    assert variables(job(render("experiment", values), "collect"))["HF_HOME"] == "/scratch/hf"
    objects = render("experiment", merged(values, CLAIM))
    assert variables(job(objects, "collect"))["HF_HOME"] == "/models"
    assert variables(job(objects, "train"))["HF_HOME"] == "/scratch/hf"


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_an_experiment_is_small_enough_for_a_release_and_for_its_readers(preset):
    values = merged({"experiment": EXPERIMENT}, parse_yaml(preset.read_text(encoding="utf-8"), str(preset)))
    assert len(yaml.safe_dump_all(render("experiment", values))) < 200_000
