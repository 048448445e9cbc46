"""Schemas of Kubernetes' objects, for kubeconform: made from the OpenAPI file of a version's Go module, and from CRDs.

    write_schemas("v1.33.0", crds, folder)
    subprocess.run(["kubeconform", "-strict", "-schema-location", f"{folder}/{LOCATION}", "-"], ...)

kubeconform by itself downloads schemas that somebody made of the same file.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

LOCATION = "{{.ResourceKind}}{{.KindSuffix}}.json"
_MODULE = "k8s.io/kubernetes"


def module_folder(module: str, version: str) -> Path:
    """Return the folder of a Go module, which is downloaded if need be."""
    command = ["go", "mod", "download", "-json", f"{module}@{version}"]
    said = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "GOFLAGS": "-mod=mod"}
    )
    return Path(json.loads(said.stdout)["Dir"])


def write_schemas(version: str, crds: list[Path], folder: Path) -> Path:
    """Write to `folder` a schema of each kind that the version has, and of each CRD; no unknown field fits any."""
    swagger = module_folder(_MODULE, version) / "api" / "openapi-spec" / "swagger.json"
    definitions = json.loads(swagger.read_text(encoding="utf-8"))["definitions"]
    closed = {name: _closed(definition) for name, definition in definitions.items()}
    folder.mkdir(parents=True)
    (folder / "_definitions.json").write_text(json.dumps({"definitions": closed}), encoding="utf-8")
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", ()):
            schema = {"$ref": f"_definitions.json#/definitions/{name}"}
            (folder / _file(kind)).write_text(json.dumps(schema), encoding="utf-8")
    for path in crds:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        for version_of in spec["versions"]:
            kind = {"group": spec["group"], "version": version_of["name"], "kind": spec["names"]["kind"]}
            schema = _closed(version_of["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            (folder / _file(kind)).write_text(json.dumps(schema), encoding="utf-8")
    return folder


def _file(kind: dict[str, str]) -> str:
    suffix = "-".join(part for part in (kind["group"].split(".")[0], kind["version"]) if part)
    return f"{kind['kind']}-{suffix}.json".lower()


def _closed(schema: Any) -> Any:
    """Close every object to fields that it does not list, and let go of words that only Kubernetes knows."""
    if not isinstance(schema, dict):
        return schema  # additionalProperties: true
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"type": ["integer", "string"]}
    if "$ref" in schema:
        return {"$ref": f"_definitions.json{schema['$ref']}"}
    closed = {name: schema[name] for name in ("type", "enum", "required") if name in schema}
    for name in ("items", "additionalProperties"):
        if name in schema:
            closed[name] = _closed(schema[name])
    if "properties" in schema:
        closed["properties"] = {name: _closed(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    return closed
