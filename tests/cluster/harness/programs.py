"""The programs that a cluster needs: built once by `tools/build-server`, or Debian's."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.errors import CannotRunError
from harness.instance import CHECKOUT

_TOOLS = CHECKOUT / "tools"
_KUBEFLOW = "github.com/kubeflow/training-operator"


@dataclass(frozen=True)
class Programs:
    """Paths: folders hold several programs."""

    kubernetes: Path
    containerd: Path
    etcd: Path
    coredns: Path
    helm: Path
    training_operator: Path
    training_operator_crd: Path
    versitygw: Path

    @classmethod
    def made(cls) -> Programs:
        """Install and build what is not there yet.

        Raises:
            CannotRunError: it cannot be had on this machine; the message says why.

        """
        _require_root()
        _tool("install-packages")
        names = ["kubernetes", "containerd", "etcd", "coredns", "helm", "training-operator", "versitygw"]
        built = {name.replace("-", "_"): Path(_tool("build-server", name)) for name in names}
        return cls(training_operator_crd=_training_crd(), **built)


def command_line_tools(folder: Path, helm: str = "helm") -> Path:
    """Return `folder` with kubectl and helm in it, by these names: what to put on PATH. Helm 3 is the tool `helm3`."""
    folder.mkdir(parents=True, exist_ok=True)
    built = {"kubectl": Path(_tool("build-server", "kubernetes")) / "kubectl"}
    built["helm"] = Path(_tool("build-server", helm))
    for name, program in built.items():
        partial = folder / f".{name}.{os.getpid()}"
        partial.symlink_to(program)
        partial.replace(folder / name)
    return folder


def _require_root() -> None:
    if os.geteuid():
        raise CannotRunError(
            "a cluster of its own needs root (namespaces, mounts, cgroups). "
            "Run as root, or set KUBECONFIG to a cluster that is there already."
        )


def _tool(name: str, *arguments: str) -> str:
    """Run one of the project's tools; what it says meanwhile is shown (some build for minutes)."""
    command = [str(_TOOLS / name), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = []
        for line in process.stderr or ():
            sys.stderr.write(line)
            said.append(line)
        output = (process.stdout or io.StringIO()).read().strip()
    if process.returncode:
        raise CannotRunError(f"`tools/{' '.join([name, *arguments])}` failed: {''.join(said[-5:]).strip()}")
    return output


def _training_crd() -> Path:
    """Return the definition of PyTorchJob, which is a file of the training operator's Go module."""
    module = subprocess.run(
        ["go", "mod", "download", "-json", _KUBEFLOW],
        cwd=_TOOLS / "training-operator",
        capture_output=True,
        text=True,
        check=False,
    )
    if module.returncode:
        raise CannotRunError(f"`go mod download {_KUBEFLOW}` failed: {module.stderr.strip()}")
    return Path(json.loads(module.stdout)["Dir"]) / "manifests" / "base" / "crds" / "kubeflow.org_pytorchjobs.yaml"
