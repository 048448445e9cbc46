"""Releases of the charts as a user makes them: a values file, `helm install`, `kubectl get saex`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import yaml

from harness import ClusterError
from kubesae.store import S3Settings, open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness import Kube
    from kubesae.store import Store

CHARTS = Path(__file__).parents[2] / "helm"
SECRET = "s3-credentials"
OPERATOR_NAMESPACE = "kubesae-system"


def give_credentials(kube: Kube, namespace: str, name: str = SECRET, **other: str) -> None:
    """Make the Secret that experiments read the S3 server's credentials from; `other` ones in place of the true."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    secret = {"metadata": {"name": name}, "stringData": {key: kube.s3[key] for key in names} | other}
    kube.apply({"apiVersion": "v1", "kind": "Secret", **secret}, namespace=namespace)


def operator_installed(kube: Kube) -> bool:
    """Tell whether the operator's release is there."""
    return bool(json.loads(kube.helm("list", f"--namespace={OPERATOR_NAMESPACE}", "--output=json")))


def install_operator(kube: Kube, image: Mapping[str, str]) -> None:
    """Install or upgrade the operator in a namespace of its own, and wait until it is ready."""
    kube.namespace(OPERATOR_NAMESPACE)
    where = f"--namespace={OPERATOR_NAMESPACE}"
    given = f"--set-json=image={json.dumps(dict(image))}"
    chart = str(CHARTS / "operator")
    kube.helm("upgrade", "--install", "kubesae-operator", chart, where, given, "--wait", "--timeout=180s")


def store_values(kube: Kube) -> dict[str, str]:
    """Return the charts' value `store` for the cluster's S3 server."""
    return {"existingSecret": SECRET, "endpoint": kube.s3["AWS_ENDPOINT_URL"], "region": kube.s3["AWS_REGION"]}


def s3_client(kube: Kube) -> Any:
    """Return an S3 client that knows nothing of kubesae."""
    return boto3.client(
        "s3",
        endpoint_url=kube.s3["AWS_ENDPOINT_URL"],
        region_name=kube.s3["AWS_REGION"],
        aws_access_key_id=kube.s3["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=kube.s3["AWS_SECRET_ACCESS_KEY"],
    )


def open_prefix(kube: Kube, url: str) -> Store:
    """Return the store at a prefix of the cluster's S3 server."""
    settings = S3Settings(
        endpoint=kube.s3["AWS_ENDPOINT_URL"],
        region=kube.s3["AWS_REGION"],
        key=kube.s3["AWS_ACCESS_KEY_ID"],
        secret=kube.s3["AWS_SECRET_ACCESS_KEY"],
    )
    return open_store(url, settings=settings)


def kubesae(kube: Kube, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line on this machine, against the same bucket."""
    command = [sys.executable, "-m", "kubesae", *arguments]
    environment = {**os.environ, **kube.s3}
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False, timeout=300)


@dataclass
class Release:
    """An experiment's release in a namespace."""

    kube: Kube
    namespace: str
    name: str
    values: list[Path] = field(default_factory=list)

    def install(self, *arguments: str) -> str:
        """Install it; return what helm says."""
        return self._helm("install", *arguments)

    def upgrade(self, *arguments: str) -> str:
        """Upgrade it; return what helm says."""
        return self._helm("upgrade", *arguments)

    def uninstall(self) -> None:
        """Uninstall it, and wait until its Pods are gone."""
        self.kube.helm("uninstall", self.name, f"--namespace={self.namespace}", "--wait", "--timeout=120s")
        self.kube.wait_for("its Pods are gone", lambda: not self.pods(), timeout=120, namespace=self.namespace)

    def _helm(self, verb: str, *arguments: str) -> str:
        files = [f"--values={path}" for path in self.values]
        where = f"--namespace={self.namespace}"
        return self.kube.helm(verb, self.name, str(CHARTS / "experiment"), where, *files, *arguments)

    def status(self) -> dict[str, Any]:
        """Return the SAEExperiment's status, {} before it has one."""
        found = self.kube.get("saex", self.name, namespace=self.namespace)
        return (found or {}).get("status") or {}

    def condition(self, kind: str) -> dict[str, Any]:
        """Return a condition of the SAEExperiment, {} while there is none."""
        conditions = {condition["type"]: condition for condition in self.status().get("conditions", ())}
        return conditions.get(kind, {})

    def wait_until(self, what: str, happened: Callable[[dict[str, Any]], Any], *, timeout: float) -> None:
        """Wait until the status is as said. Fails at once when the experiment has failed and that was not asked for."""
        end = time.monotonic() + timeout
        while not happened(self.status()):
            failed = self.condition("Failed")
            if failed.get("status") == "True":
                raise ClusterError(f"{self.name} failed ({failed}) while waiting until {what}\n{self._describe()}")
            if time.monotonic() > end:
                raise ClusterError(f"not within {timeout:.0f} s: {what}\n{self._describe()}")
            time.sleep(1)

    def wait_until_complete(self, timeout: float = 900) -> None:
        """Wait until the experiment is complete."""
        self.wait_until("it is complete", lambda status: status.get("phase") == "Complete", timeout=timeout)

    def jobs(self, phase: str) -> list[dict[str, Any]]:
        """Return the Jobs of a phase."""
        label = f"kubesae.dev/experiment={self.name},kubesae.dev/phase={phase}"
        return list(self.kube.get("jobs", f"--selector={label}", namespace=self.namespace) or ())

    def pods(self, phase: str = "") -> list[dict[str, Any]]:
        """Return the Pods of the experiment's phases, or of one."""
        label = f"kubesae.dev/experiment={self.name},kubesae.dev/phase" + (f"={phase}" if phase else "")
        return list(self.kube.get("pods", f"--selector={label}", namespace=self.namespace) or ())

    def _describe(self) -> str:
        status = json.dumps(self.status(), indent=1)
        return f"Status: {status}\n{self.kube.describe(self.namespace)}\n{self.kube.describe(OPERATOR_NAMESPACE)}"


def write_values(path: Path, values: Mapping[str, Any]) -> Path:
    """Write a values file."""
    path.write_text(yaml.safe_dump(dict(values), sort_keys=False), encoding="utf-8")
    return path
