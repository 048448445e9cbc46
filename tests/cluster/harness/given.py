"""A cluster that was there before us: KUBECONFIG names it, and the usual AWS variables name its S3 server."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ClusterError
from harness.instance import cache
from harness.kube import Kube
from harness.programs import command_line_tools
from harness.shell import run

_S3 = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


@dataclass(frozen=True)
class Given:
    """Somebody else's cluster: nothing of it is started or stopped here."""

    kube: Kube

    @classmethod
    def from_environment(cls) -> Given:
        """Return the one that the environment names.

        Raises:
            ClusterError: a variable is missing.

        """
        missing = [name for name in _S3 if not os.environ.get(name)]
        if missing:
            raise ClusterError(
                f"KUBECONFIG names a cluster, but {', '.join(missing)} is not set: tests need an S3 server that this "
                "machine and the cluster's Pods reach at the same URL"
            )
        s3 = {name: os.environ[name] for name in _S3}
        return cls(Kube(Path(os.environ["KUBECONFIG"]), command_line_tools(cache() / "cluster" / "bin"), s3))

    def load_image(self, source: Path, name: str = "") -> None:
        """Give the nodes an image, by the command in KUBESAE_LOAD_IMAGE with the archive's path behind it."""
        command = os.environ.get("KUBESAE_LOAD_IMAGE")
        if not command:
            raise ClusterError(
                f"the cluster that KUBECONFIG names needs the image {name or source}. Say by what command it takes an "
                "archive: export KUBESAE_LOAD_IMAGE='kind load image-archive'"
            )
        run([*shlex.split(command), source], timeout=1800)
