"""What is written down of a running cluster, so that another process can use it, or take it down after a crash."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from harness.components import Component
from harness.errors import ClusterError
from harness.world import Process

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.instance import Instance


@dataclass
class State:
    """All of it."""

    owner: Process | None  # the process whose end makes it a remainder; None: it is meant to stay
    kernel: dict[str, str]  # the machine's settings, as they were before
    init: Process | None = None
    s3: dict[str, str] = field(default_factory=dict)
    components: dict[str, Component] = field(default_factory=dict)
    ready: bool = False

    @classmethod
    def read(cls, instance: Instance) -> State | None:
        """Return what is written down, or None."""
        if not instance.state.exists():
            return None
        found = json.loads(instance.state.read_text())
        for name in ("owner", "init"):
            found[name] = Process(**found[name]) if found[name] else None
        for component in found["components"].values():
            component["process"] = Process(**component["process"])
        found["components"] = {name: Component(**component) for name, component in found["components"].items()}
        return cls(**found)

    def save(self, instance: Instance) -> None:
        """Write it down, whole or not at all."""
        partial = instance.state.with_suffix(".partial")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(asdict(self), indent=1))
        partial.replace(instance.state)

    def in_use(self) -> bool:
        """Tell whether the cluster is up and nobody's remainder."""
        return self.ready and bool(self.init and self.init.alive()) and (self.owner is None or self.owner.alive())


@contextmanager
def locked(instance: Instance) -> Iterator[None]:
    """Let one process at a time bring a cluster up or take it down."""
    instance.folder.mkdir(parents=True, exist_ok=True)
    with (instance.folder / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip()
            raise ClusterError(
                f"the cluster '{instance.name}' is being brought up or taken down by process {holder}. "
                "Wait for it, or name another: KUBESAE_CLUSTER=other"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
