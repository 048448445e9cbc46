"""The operator as its own process, with the rights that its chart grants and none besides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from releases import CHARTS, OPERATOR_NAMESPACE
from s3_server import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Local

NAME = "kubesae-operator"
USER = f"system:serviceaccount:{OPERATOR_NAMESPACE}:{NAME}"
STOP_SECONDS = 10.0


def install(local: Local) -> Path:
    """Install the operator's chart without Pods; return a kubeconfig of its service account."""
    where = f"--namespace={OPERATOR_NAMESPACE}"
    local.kube.namespace(OPERATOR_NAMESPACE)
    local.kube.helm("install", NAME, str(CHARTS / "operator"), where, "--set=replicas=0")
    token = local.kube.kubectl("create", "token", NAME, where, "--duration=4h").strip()
    config = json.loads(local.instance.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    path = local.instance.run / "operator.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return path


class RealOperator:
    """A running operator."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self._log = process, log

    @classmethod
    @contextmanager
    def running(cls, kubeconfig: Path, log: Path) -> Iterator[RealOperator]:
        """Start it as its Deployment does, and end it."""
        arguments = [f"--lease-namespace={OPERATOR_NAMESPACE}", f"--metrics-port={free_port()}"]
        environment = {"KUBECONFIG": str(kubeconfig), "PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603 - ourselves
                [sys.executable, "-m", "kubesae_operator", *arguments], env=environment, stderr=output
            )
        try:
            yield cls(process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def check(self) -> None:
        """Raise where it has ended."""
        if self._process.poll() is not None:
            end = "\n".join(self._log.read_text().splitlines()[-15:])
            raise RuntimeError(f"the operator ended with {self._process.returncode}:\n{end}")

    def peak_bytes(self) -> int:
        """Return the most memory that it had resident at any time since its start."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return 1024 * next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM:"))
