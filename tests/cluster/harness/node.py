"""The one node: containerd, the kubelet and kube-proxy, and eight GPUs that exist only in the node's status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from harness import cgroups, network, tiny_images

if TYPE_CHECKING:
    from harness.components import Components
    from harness.instance import Instance
    from harness.pki import Authority
    from harness.programs import Programs

SOCKET = Path("/run/containerd/containerd.sock")  # inside: /run is the cluster's own
GPUS = 8
_NEVER = "0%"


def start_containerd(instance: Instance, programs: Programs, components: Components) -> None:
    """Start containerd and wait until it answers."""
    path = instance.run / "containerd.toml"
    path.write_text(_containerd_configuration(instance))
    conf = instance.run / "cni" / "10-pods.conflist"
    conf.parent.mkdir()
    conf.write_text(json.dumps(network.cni_configuration(instance)))
    instance.images.mkdir(parents=True, exist_ok=True)
    # containerd finds its shim on PATH
    paths = f"{programs.containerd}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command = [str(programs.containerd / "containerd"), f"--config={path}"]
    components.start("containerd", command, {"PATH": paths}, ready=f"http://{instance.node}:1338/v1/metrics")
    if _forget_containers(programs, components):
        components.restart("containerd")


def start(instance: Instance, programs: Programs, components: Components, authority: Authority) -> None:
    """Start what makes the node a node of the cluster."""
    cgroups.make(instance)
    _start_kubelet(instance, programs, components, authority)
    _start_proxy(instance, programs, components, authority)


def gpu_patch() -> str:
    """Return the patch of a node's status that gives it GPUs."""
    return json.dumps({"status": {"capacity": {"nvidia.com/gpu": str(GPUS)}}})


def ctr(programs: Programs) -> list[str | Path]:
    """Return the command that administers the images and containers of Kubernetes, to be run inside."""
    return [programs.containerd / "ctr", f"--address={SOCKET}", "--namespace=k8s.io"]


def _containerd_configuration(instance: Instance) -> str:
    return f"""\
version = 3
root = "{instance.images}"
state = "/run/containerd"

[grpc]
address = "{SOCKET}"

[metrics]
address = "{instance.node}:1338"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{tiny_images.PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
# A machine may lack the right to make a process less likely to be killed; without this no container starts there.
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
conf_dir = "{instance.run / "cni"}"
"""


def _forget_containers(programs: Programs, components: Components) -> bool:
    """Remove what a former cluster's containers left in containerd's books; tell whether there was any."""
    listed = components.world.run([*ctr(programs), "containers", "list", "--quiet"]).split()
    sandboxes = components.world.run([*ctr(programs), "sandboxes", "list"]).splitlines()[1:]
    if listed:
        components.world.run([*ctr(programs), "containers", "delete", *listed])
    for line in sandboxes:
        components.world.run([*ctr(programs), "sandboxes", "remove", "--force", line.split()[0]])
    return bool(listed or sandboxes)


def _start_kubelet(instance: Instance, programs: Programs, components: Components, authority: Authority) -> None:
    user = f"system:node:{instance.name}"
    kubeconfig = authority.kubeconfig(
        instance.run / "kubelet.kubeconfig", instance.server, user, organisation="system:nodes"
    )
    certificate, key = authority.issue("kubelet-server", user, hosts=[instance.node])
    resolv = instance.run / "resolv.conf"
    resolv.write_text("")
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{instance.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "clusterDNS": [instance.node],
        "clusterDomain": "cluster.local",
        "resolvConf": str(resolv),
        "address": instance.node,
        "healthzBindAddress": instance.node,
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "podLogsDir": str(instance.run / "var-log" / "pods"),
        "volumePluginDir": str(instance.run / "volume-plugins"),
        # A machine with a full disk is the machine's business: no image is removed and no Pod evicted for it.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"imagefs.available": _NEVER, "nodefs.available": _NEVER, "nodefs.inodesFree": _NEVER},
        "serializeImagePulls": False,
    }
    path = instance.run / "kubelet.yaml"
    path.write_text(yaml.safe_dump(configuration))
    components.start(
        "kubelet",
        [
            programs.kubernetes / "kubelet",
            f"--config={path}",
            f"--kubeconfig={kubeconfig}",
            f"--root-dir={instance.run / 'kubelet'}",
            f"--hostname-override={instance.name}",
            f"--node-ip={instance.node}",
        ],
        ready=f"http://{instance.node}:10248/healthz",
    )


def _start_proxy(instance: Instance, programs: Programs, components: Components, authority: Authority) -> None:
    kubeconfig = authority.kubeconfig(instance.run / "proxy.kubeconfig", instance.server, "system:kube-proxy")
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "mode": "nftables",
        "clusterCIDR": instance.pods,
        "hostnameOverride": instance.name,
        "metricsBindAddress": f"{instance.node}:10249",
        # The machine's own limits are not for a test to change.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    path = instance.run / "kube-proxy.yaml"
    path.write_text(yaml.safe_dump(configuration))
    command = [str(programs.kubernetes / "kube-proxy"), f"--config={path}"]
    components.start("kube-proxy", command, ready=f"http://{instance.node}:10249/healthz")
