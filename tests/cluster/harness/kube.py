"""What a test does with a cluster, ours or any other: kubectl, helm, wait, read logs."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import ClusterError
from harness.shell import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_FIELD_MANAGER = "kubesae-tests"


@dataclass(frozen=True)
class Kube:
    """A cluster, and an S3 server that its Pods and this process reach at the same URL."""

    kubeconfig: Path
    tools: Path  # the folder of kubectl and helm
    s3: Mapping[str, str]  # AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION

    def environment(self) -> dict[str, str]:
        """Return what a shell needs for kubectl, helm and S3 clients."""
        path = f"{self.tools}:{os.environ.get('PATH', '')}"
        return {"KUBECONFIG": str(self.kubeconfig), "PATH": path, **self.s3}

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 120, check: bool = True) -> str:
        """Run kubectl and return what it writes."""
        return run(
            [self.tools / "kubectl", *arguments], text=stdin, env=self._environment(), timeout=timeout, check=check
        )

    def helm(self, *arguments: str, stdin: str | None = None, timeout: float = 300, check: bool = True) -> str:
        """Run helm and return what it writes."""
        return run([self.tools / "helm", *arguments], text=stdin, env=self._environment(), timeout=timeout, check=check)

    def apply(self, *documents: str | Mapping[str, Any], namespace: str = "") -> str:
        """Apply objects, as YAML text or as they are in Python, from the server's side (a large CRD fits only so)."""
        texts = [document if isinstance(document, str) else json.dumps(document) for document in documents]
        where = [f"--namespace={namespace}"] if namespace else []
        how = ["--server-side", "--force-conflicts", f"--field-manager={_FIELD_MANAGER}"]
        return self.kubectl("apply", *where, *how, "-f", "-", stdin="\n---\n".join(texts))

    def get(self, *arguments: str, namespace: str = "") -> Any:
        """Return one object, None if it is not there, or the list of all that match."""
        where = [f"--namespace={namespace}"] if namespace else []
        named = "/" in arguments[0] or sum(not argument.startswith("-") for argument in arguments) > 1
        missing = ["--ignore-not-found"] if named else []
        text = self.kubectl("get", *where, "--output=json", *missing, *arguments)
        found = json.loads(text) if text.strip() else None
        return found["items"] if found and not named else found

    def logs(self, pod: str, *arguments: str, namespace: str = "default") -> str:
        """Return what a Pod (or `job/NAME`) has written."""
        return self.kubectl("logs", pod, f"--namespace={namespace}", *arguments)

    def wait_for(self, what: str, happened: Callable[[], Any], *, timeout: float = 120, namespace: str = "") -> Any:
        """Wait until `happened` returns something true, and return that.

        Raises:
            ClusterError: not within `timeout` seconds; it shows events, Pods and the ends of logs.

        """
        end = time.monotonic() + timeout
        while True:
            found = happened()
            if found:
                return found
            if time.monotonic() > end:
                raise ClusterError(f"not within {timeout:.0f} s: {what}\n{self.describe(namespace)}")
            time.sleep(0.3)

    def namespace(self, name: str) -> str:
        """Make a namespace that lets in restricted Pods only, which is where experiments have to run."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        account = ["get", "serviceaccount", "default", f"--namespace={name}", "--ignore-not-found", "--output=name"]
        self.wait_for(f"the namespace {name} can take Pods", lambda: self.kubectl(*account), timeout=60)
        return name

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace, and do not wait for it.

        Its Jobs go first. Kubernetes itself begins with the Pods, and a Job that counts failures of each index does not
        let go of a failed Pod before it has made another one, which nobody can in a namespace that ends.
        """
        self.kubectl("delete", "jobs", "--all", f"--namespace={name}", "--wait=false")
        self.kubectl("delete", "namespace", name, "--wait=false")

    def folder_claim(self, name: str, folder: Path, *, namespace: str) -> str:
        """Make a PersistentVolumeClaim that is a folder of the node, which restricted Pods may not name themselves."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)  # Pods run under an account that this machine does not know
        common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        size = {"storage": "1Ti"}
        volume = f"{namespace}-{name}"
        claim = {"namespace": namespace, "name": name}
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {**common, "capacity": size, "hostPath": {"path": str(folder)}, "claimRef": claim},
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": claim,
                "spec": {**common, "resources": {"requests": size}, "volumeName": volume},
            },
        )
        return name

    def describe(self, namespace: str = "") -> str:
        """Return what a person would look at: Pods, events and the ends of logs, of one namespace or all."""
        where = [f"--namespace={namespace}"] if namespace else ["--all-namespaces"]
        parts = [
            "Nodes:\n" + self.kubectl("get", "nodes", "--output=wide", check=False),
            "Pods:\n" + self.kubectl("get", "pods", *where, "--output=wide", check=False),
            "Events:\n" + _last(self.kubectl("get", "events", *where, "--sort-by=.lastTimestamp", check=False), 40),
        ]
        listed = self.kubectl("get", "pods", *where, "--output=json", check=False)
        for pod in json.loads(listed or "{}").get("items", [])[-8:]:
            name, home = pod["metadata"]["name"], pod["metadata"]["namespace"]
            said = self.kubectl("logs", name, f"--namespace={home}", "--all-containers", "--tail=20", check=False)
            parts.append(f"Log of {home}/{name}:\n{said}")
        return "\n".join(parts)

    def _environment(self) -> dict[str, str]:
        """Return an environment in which no proxy stands before the cluster."""
        return {**os.environ, **self.environment(), "NO_PROXY": "*", "no_proxy": "*"}


def _last(text: str, lines: int) -> str:
    return "\n".join(text.splitlines()[-lines:])
