"""The charts as Helm renders them, without a cluster, and what to look for in the objects.

    objects = render("experiment", {"experiment": EXPERIMENT})
    container(job(objects, "collect"))["args"]

Helm is built once, by `tools/build-server helm`, from a pinned Go module.
"""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "helm"
PRESETS = sorted((CHARTS / "experiment" / "presets").glob("*.yaml"))
PHASES = ("fetch", "prepare", "pilot", "collect", "verify", "train", "interpret")

EXPERIMENT: dict[str, Any] = {
    "data": "s3://bucket/prefix",
    "model": "organisation/model",
    "layers": [3],
    "corpora": [{"name": "web", "source": "organisation/corpus"}],
    "sae": [{"name": "first"}],
}
FETCHED = {"experiment": {"model": "/models/m"}, "phases": {"fetch": {"source": "organisation/m"}}}
"""values with which the Pods fetch the model themselves"""
MIRRORED = {
    "experiment": {"model": "/models/m"},
    "phases": {"fetch": {"source": "organisation/m", "mirror": "s3://b/m"}},
}
"""values with which a Job fetches it too"""


@cache
def helm_program() -> str:
    """Return the path of Helm."""
    build = [ROOT / "tools" / "build-server", "helm"]
    return subprocess.run(build, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def helm(*arguments: str, values: str = "") -> subprocess.CompletedProcess[str]:
    """Run Helm, with `values` on its standard input."""
    return subprocess.run([helm_program(), *arguments], input=values, capture_output=True, text=True, check=False)


def template(
    chart: str, values: dict[str, Any], *arguments: str, name: str = "exp"
) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with these values (JSON is YAML)."""
    command = ("template", name, str(CHARTS / chart), "--namespace", "space", "--values", "-", *arguments)
    return helm(*command, values=json.dumps(values))


@cache
def _rendered(chart: str, values: str, arguments: tuple[str, ...], name: str) -> str:
    ran = template(chart, json.loads(values), *arguments, name=name)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def render(chart: str, values: dict[str, Any], *arguments: str, name: str = "exp") -> list[dict[str, Any]]:
    """Return the objects that a chart makes of the values."""
    text = _rendered(chart, json.dumps(values, sort_keys=True), arguments, name)
    return [item for item in yaml.load_all(text, Loader=yaml.CSafeLoader) if item]


def refusal(values: dict[str, Any], *arguments: str, name: str = "exp") -> str:
    """Return what the experiment's chart says when it refuses the values."""
    ran = template("experiment", values, *arguments, name=name)
    assert ran.returncode != 0, "nothing was refused"
    return ran.stderr


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Lay values over values, as Helm does."""
    result: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            below = result.get(name)
            result[name] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def at(path: str, value: Any) -> dict[str, Any]:
    """Return values in which the dotted `path` is `value`."""
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the objects of a kind."""
    return [item for item in objects if item["kind"] == kind]


def one(objects: list[dict[str, Any]], kind: str, name: str = "") -> dict[str, Any]:
    """Return the one object of a kind whose name contains `name`."""
    (found,) = [item for item in of_kind(objects, kind) if name in item["metadata"]["name"]]
    return found


def jobs(objects: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    """Return the jobs of a phase."""
    kinds = ("Job", "PyTorchJob")
    return [o for o in objects if o["kind"] in kinds and o["metadata"]["labels"]["kubesae.dev/phase"] == phase]


def job(objects: list[dict[str, Any]], phase: str) -> dict[str, Any]:
    """Return the one job of a phase."""
    (found,) = jobs(objects, phase)
    return found


def pod_template(item: dict[str, Any]) -> dict[str, Any]:
    """Return the Pod that a job, a Deployment or a Pod makes: its metadata and spec."""
    if item["kind"] == "Pod":
        return item
    if item["kind"] == "PyTorchJob":
        (replicas,) = item["spec"]["pytorchReplicaSpecs"].values()
        return replicas["template"]
    return item["spec"]["template"]


def pod_templates(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return every Pod that the objects make, by the kind and name of what makes it."""
    kinds = ("Pod", "Job", "PyTorchJob", "Deployment")
    return {f"{o['kind']} {o['metadata']['name']}": pod_template(o) for o in objects if o["kind"] in kinds}


def pod(item: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of the Pod that an object makes."""
    return pod_template(item)["spec"]


def container(item: dict[str, Any]) -> dict[str, Any]:
    """Return the container of the Pod that an object makes."""
    (found,) = pod(item)["containers"]
    return found


def variables(item: dict[str, Any]) -> dict[str, Any]:
    """Return the environment of that container: a value, or where it comes from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container(item)["env"]}


def mounts(item: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is mounted in that container, by path, each with its volume."""
    volumes = {volume["name"]: volume for volume in pod(item)["volumes"]}
    return {mount["mountPath"]: mount | volumes[mount["name"]] for mount in container(item)["volumeMounts"]}
