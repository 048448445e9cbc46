"""The cluster's network: a bridge for Pods, and a link to the machine, so that tests reach what Pods reach.

There is no route to anywhere else: what runs in the cluster cannot call out.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from harness.errors import ClusterError
from harness.shell import run

if TYPE_CHECKING:
    from harness.instance import Instance
    from harness.world import World

BRIDGE = "pods"


def make(instance: Instance, world: World) -> None:
    """Make bridge, link and route."""
    taken = run(["ip", "route", "show", "root", instance.network]).strip()
    if taken:
        raise ClusterError(
            f"the addresses {instance.network} are in use on this machine ({taken.splitlines()[0]}). "
            "Name the cluster otherwise, KUBESAE_CLUSTER=other, and it takes others."
        )
    inside = [
        ["ip", "link", "set", "lo", "up"],
        ["ip", "link", "add", BRIDGE, "type", "bridge"],
        ["ip", "address", "add", f"{instance.node}/24", "dev", BRIDGE],
        ["ip", "link", "set", BRIDGE, "up"],
        # kube-proxy puts a Pod's address in place of a Service's, but only in packets that have a way to go
        ["ip", "route", "add", instance.services, "dev", BRIDGE],
        ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"],
    ]
    for command in inside:
        world.run(command)
    far_end = ["peer", "name", "machine", "netns", str(world.init.pid)]
    run(["ip", "link", "add", instance.link, "type", "veth", *far_end])
    run(["ip", "address", "add", f"{instance.machine}/30", "dev", instance.link])
    run(["ip", "link", "set", instance.link, "up"])
    world.run(["ip", "address", "add", f"{instance.uplink}/30", "dev", "machine"])
    world.run(["ip", "link", "set", "machine", "up"])
    run(["ip", "route", "add", instance.network, "via", instance.uplink, "dev", instance.link])


def remove(instance: Instance) -> None:
    """Remove the link, if the end of the cluster's network has not done so."""
    if instance.link in {device["ifname"] for device in json.loads(run(["ip", "-json", "link", "show"]))}:
        run(["ip", "link", "delete", instance.link], check=False)


def cni_configuration(instance: Instance) -> dict[str, object]:
    """Return how Pods are put on the bridge."""
    addresses = {
        "type": "host-local",
        "dataDir": str(instance.run / "addresses"),
        "ranges": [[{"subnet": instance.pods, "gateway": instance.node}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,  # a Pod reaches itself by its Service
        "ipam": addresses,
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}
