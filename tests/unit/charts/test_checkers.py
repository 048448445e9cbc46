"""What other people's checkers say of the rendered charts: kube-score, and kubeconform on the versions we support."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from charts import CHARTS, EXPERIMENT, MIRRORED, PRESETS, ROOT, merged, render
from kubernetes_schemas import LOCATION, module_folder, write_schemas
from kubesae.experiment import parse_yaml

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# The oldest that the charts' kubeVersion allows, the newest, and the one of the cluster tests.
VERSIONS = ("v1.33.0", "v1.36.3", "v1.37.2")
FULL = merged(
    {"experiment": EXPERIMENT},
    MIRRORED,
    {
        "store": {"existingSecret": "s3", "endpoint": "http://s3:9000", "caBundle": {"configMap": "ca"}},
        "hub": {"existingSecret": "hub"},
        "queue": {"name": "gpu", "minParallelism": 1},
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn"}},
    },
)


def all_objects() -> list[dict[str, Any]]:
    objects = [*render("operator", {}), *render("operator", {"watchNamespace": "science"})]
    for train in ({}, {"workers": 2}, {"backend": "job"}, {"backend": "job", "workers": 2, "minWorkers": 1}):
        objects += render("experiment", merged(FULL, {"phases": {"train": train}}))
    for preset in PRESETS:
        text = preset.read_text(encoding="utf-8")
        objects += render("experiment", merged({"experiment": EXPERIMENT}, parse_yaml(text, str(preset))))
    return objects


def checked(name: str, *arguments: str, objects: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    build = [ROOT / "tools" / "build-server", name]
    program = subprocess.run(build, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    text = yaml.dump_all(objects, Dumper=yaml.CSafeDumper)
    return subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=False)


def test_kube_score_has_nothing_critical_and_no_warning():
    ran = checked("kube-score", "score", "--output-format=ci", "-", objects=all_objects())
    lines = [line for line in ran.stdout.splitlines() if line.startswith(("[CRITICAL]", "[WARNING]"))]
    assert lines == []
    assert "[OK]" in ran.stdout


@pytest.fixture(scope="module", params=VERSIONS)
def schemas(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kubeflow = module_folder("github.com/kubeflow/training-operator", "v1.8.1") / "manifests" / "base" / "crds"
    crds = [CHARTS / "operator" / "files" / "saeexperiments.yaml", kubeflow / "kubeflow.org_pytorchjobs.yaml"]
    return write_schemas(request.param, crds, tmp_path_factory.mktemp("schemas") / request.param)


def conform(schemas: Path, objects: list[dict[str, Any]]) -> dict[str, Any]:
    arguments = ("-strict", "-summary", "-output=json", "-schema-location", f"{schemas}/{LOCATION}", "-")
    ran = checked("kubeconform", *arguments, objects=objects)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_every_object_is_one_of_that_version(schemas):
    objects = all_objects()
    found = conform(schemas, objects)
    assert found.get("resources", []) == []
    assert found["summary"] == {"valid": len(objects), "invalid": 0, "errors": 0, "skipped": 0}


def test_a_field_that_the_version_does_not_have_is_found(schemas):
    objects = [item for item in all_objects() if item["kind"] in {"Job", "PyTorchJob", "SAEExperiment"}][:20]
    for item in objects:
        item["spec"]["parallelsim"] = 1
    assert conform(schemas, objects)["summary"]["invalid"] == len(objects)
