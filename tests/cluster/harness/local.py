"""A whole cluster on this machine: brought up, used, taken down.

Use it as `with Local.up() as cluster: cluster.kube.kubectl("get", "nodes")`.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from harness import control_plane, image_store, network, node, services, tiny_images
from harness.components import Components
from harness.errors import ClusterError
from harness.instance import Instance
from harness.kube import Kube
from harness.pki import Authority
from harness.programs import Programs, command_line_tools
from harness.state import State, locked
from harness.teardown import down, kernel_settings, take_down
from harness.world import Process, World

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


@dataclass
class Local:
    """A running cluster of ours."""

    instance: Instance
    programs: Programs
    world: World
    components: Components
    kube: Kube

    @classmethod
    def up(
        cls,
        instance: Instance | None = None,
        *,
        lasting: bool = False,
        keep_objects: bool = False,
        without_node: bool = False,
    ) -> Local:
        """Bring a cluster up.

        Args:
            instance: which one; by default the one that the environment names.
            lasting: it outlives this process. Otherwise it ends with it, and the next `up` removes what remains.
            keep_objects: what the S3 server of the last one held is there again.
            without_node: the control plane and the S3 server alone. Nodes that somebody makes are ready for ever.

        Raises:
            ClusterError: one is up already, or a component does not start; the message shows its log.
            CannotRunError: this machine cannot run it.

        """
        instance = instance or Instance.chosen()
        programs = Programs.made()
        with locked(instance):
            state = State.read(instance)
            if state and state.in_use():
                raise ClusterError(
                    f"the cluster '{instance.name}' is up already. Use it: export KUBECONFIG={instance.kubeconfig}, "
                    "or take it down: make cluster-down"
                )
            take_down(instance, keep_objects=keep_objects)
            try:
                owner = None if lasting else Process.of(os.getpid())
                return _bring_up(instance, programs, owner=owner, with_node=not without_node)
            except BaseException as error:
                take_down(instance, keep_logs=isinstance(error, Exception))  # not when the user interrupted it
                raise

    @classmethod
    def attached(cls, instance: Instance | None = None) -> Local | None:
        """Return the cluster that another process has brought up, or None."""
        instance = instance or Instance.chosen()
        state = State.read(instance)
        if not state or not state.init or not state.in_use():
            return None
        return _local(instance, Programs.made(), World(state.init), state)

    def down(self, *, keep_objects: bool = False) -> None:
        """Take it down, with everything that ran or was stored in it; `keep_objects`: but for the S3 server's."""
        down(self.instance, keep_objects=keep_objects)

    def replace(self) -> None:
        """Lose the whole cluster and bring up a new one with the same S3 server: its objects, its credentials."""
        state = State.read(self.instance)
        lasting = state is not None and state.owner is None
        self.down(keep_objects=True)
        fresh = Local.up(self.instance, lasting=lasting, keep_objects=True)
        self.world, self.components = fresh.world, fresh.components

    def load_image(self, source: Path, name: str = "") -> None:
        """Give the node an image: see `image_store.load_image`."""
        image_store.load_image(self.world, self.programs, source, name)

    def kill_container(self, pod: str, *, namespace: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send what runs in a Pod's first container a signal that the kubelet knows nothing of."""
        status = self.kube.get("pod", pod, namespace=namespace)["status"]["containerStatuses"][0]
        container = status["containerID"].removeprefix("containerd://")
        self.world.run([*node.ctr(self.programs), "tasks", "kill", f"--signal={number.name}", container])

    def restart_kubelet(self) -> None:
        """Start the kubelet anew. It forgets GPUs that no device plugin tells it of, so the node gets them again."""
        self.components.restart("kubelet")
        self.give_gpus()

    def give_gpus(self) -> None:
        """Make the node advertise its GPUs, and wait until it is ready with them."""
        name, kube = self.instance.name, self.kube

        def ready() -> bool:
            status = kube.get("node", name)["status"]
            conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
            return conditions.get("Ready") == "True" and status["allocatable"].get("nvidia.com/gpu") == str(node.GPUS)

        kube.wait_for("the node is registered", lambda: kube.get("node", name), timeout=90)
        kube.kubectl("patch", "node", name, "--subresource=status", "--type=merge", f"--patch={node.gpu_patch()}")
        kube.wait_for("the node is ready and advertises GPUs", ready, timeout=90)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()


def _bring_up(instance: Instance, programs: Programs, *, owner: Process | None, with_node: bool) -> Local:
    state = State(owner, kernel_settings())
    state.save(instance)
    instance.logs.mkdir(parents=True, exist_ok=True)
    pause = tiny_images.build_pause(instance.run)
    world = World.make(instance, pause, bound=owner is not None)
    state.init = world.init
    state.save(instance)
    network.make(instance, world)
    authority = Authority(instance.pki)
    authority.kubeconfig(instance.kubeconfig, instance.server, "administrator", organisation=control_plane.MASTERS)
    components = _local(instance, programs, world, state).components
    if with_node:
        node.start_containerd(instance, programs, components)
    state.s3 = services.start_s3(instance, programs, components)
    local = _local(instance, programs, world, state)
    if with_node:
        local.load_image(tiny_images.pause_archive(pause))
        local.load_image(tiny_images.busybox_archive(instance.run))
    control_plane.start(instance, programs, components, authority, watch_nodes=with_node)
    if with_node:
        node.start(instance, programs, components, authority)
        services.start_dns(instance, programs, components, authority)
        services.start_training_operator(instance, programs, components, authority, local.kube)
        local.give_gpus()
    state.ready = True
    state.save(instance)
    return local


def _local(instance: Instance, programs: Programs, world: World, state: State) -> Local:
    certificate = instance.pki / "ca.crt"
    components = Components(world, instance.logs, certificate, lambda: state.save(instance), state.components)
    kube = Kube(instance.kubeconfig, command_line_tools(instance.folder / "bin"), state.s3)
    return Local(instance, programs, world, components, kube)
