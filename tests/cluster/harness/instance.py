"""Where one cluster keeps everything, and which addresses it has.

All of it follows from the name (KUBESAE_CLUSTER, else `kubesae`), so that two clusters can run side by side. A network
and a process namespace of its own keep everything else apart: ports and process ids are never in anybody's way.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]


def cache() -> Path:
    """Return the folder of what outlives a checkout: programs, images."""
    fallback = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubesae"
    return Path(os.environ.get("KUBESAE_CACHE") or fallback)


@dataclass(frozen=True)
class Instance:
    """Names, folders and addresses of one cluster."""

    name: str

    @classmethod
    def chosen(cls) -> Instance:
        """Return the one that the environment names."""
        return cls(os.environ.get("KUBESAE_CLUSTER") or "kubesae")

    @cached_property
    def folder(self) -> Path:
        """The folder that outlives the cluster."""
        return cache() / "cluster" / self.name

    @cached_property
    def images(self) -> Path:
        """containerd's root: images stay here between runs."""
        return self.folder / "containerd"

    @cached_property
    def run(self) -> Path:
        """Everything that ends with the cluster."""
        return self.folder / "run"

    @cached_property
    def logs(self) -> Path:
        """A log for each component."""
        return self.run / "logs"

    @cached_property
    def audit_log(self) -> Path:
        """A JSON line for each request that a service account makes of the API server."""
        return self.logs / "audit.log"

    @cached_property
    def s3_log(self) -> Path:
        """A line for each request to the S3 server, in the format of S3's own access log."""
        return self.logs / "s3-access.log"

    @cached_property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.run / "pki"

    @cached_property
    def objects(self) -> Path:
        """What the S3 server keeps. It outlives a cluster that is replaced: see `Local.replace`."""
        return self.folder / "s3"

    @cached_property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.run / "admin.kubeconfig"

    @cached_property
    def state(self) -> Path:
        """What `down` has to know."""
        return self.folder / "state.json"

    @cached_property
    def octet(self) -> int:
        """The N of 10.N.0.0/16, in which all addresses lie."""
        return 77 if self.name == "kubesae" else 78 + zlib.crc32(self.name.encode()) % 100

    @property
    def network(self) -> str:
        """Pods, Services and the link to the machine."""
        return f"10.{self.octet}.0.0/16"

    @property
    def pods(self) -> str:
        """Addresses of Pods."""
        return f"10.{self.octet}.0.0/24"

    @property
    def services(self) -> str:
        """Addresses of Services."""
        return f"10.{self.octet}.128.0/20"

    @property
    def node(self) -> str:
        """The bridge's address, which is the node's: the API server, DNS and the S3 server answer here."""
        return f"10.{self.octet}.0.1"

    @property
    def first_service(self) -> str:
        """The address of the Service `kubernetes`."""
        return f"10.{self.octet}.128.1"

    @property
    def machine(self) -> str:
        """The machine's own address, as Pods see it: what a test listens at."""
        return f"10.{self.octet}.255.1"

    @property
    def uplink(self) -> str:
        """The cluster's end of the link to the machine."""
        return f"10.{self.octet}.255.2"

    @property
    def link(self) -> str:
        """The name of the machine's end (a network device's name has 15 letters at most)."""
        return f"{self.name[:10]}-link"

    @property
    def cgroup(self) -> str:
        """The cgroup of all Pods, below the root of each hierarchy."""
        return f"{self.name}-cluster"

    @property
    def server(self) -> str:
        """The URL of the API server."""
        return f"https://{self.node}:6443"
