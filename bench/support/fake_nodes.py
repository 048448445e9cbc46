"""Nodes that exist only in the API, with GPUs; kwok says in the kubelet's place that what lies on them runs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from kubernetes.client import CoreV1Api
from kubernetes.config import new_client_from_config

if TYPE_CHECKING:
    from harness import Local

BUILD = Path(__file__).parents[2] / "tools" / "build-server"
GPUS = 8
CAPACITY = {
    "cpu": "128",
    "memory": "1Ti",
    "ephemeral-storage": "4Ti",
    "pods": "110",
    "nvidia.com/gpu": str(GPUS),
}

# How a node becomes ready, a Pod runs (and runs on: Jobs do not end) and a deleted Pod goes.
STAGES = """\
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: node-is-ready}
spec:
  resourceRef: {apiGroup: v1, kind: Node}
  selector:
    matchExpressions:
      - {key: '.status.conditions.[] | select(.type == "Ready") | .status', operator: NotIn, values: ["True"]}
  next:
    statusTemplate: |
      conditions:
        - type: Ready
          status: "True"
          reason: KubeletReady
          lastHeartbeatTime: {{ Now | Quote }}
          lastTransitionTime: {{ Now | Quote }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-runs}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: DoesNotExist}
      - {key: .status.phase, operator: In, values: [Pending]}
  next:
    statusTemplate: |
      {{ $now := Now | Quote }}
      phase: Running
      startTime: {{ $now }}
      conditions:
        - {type: Initialized, status: "True", lastTransitionTime: {{ $now }}}
        - {type: ContainersReady, status: "True", lastTransitionTime: {{ $now }}}
        - {type: Ready, status: "True", lastTransitionTime: {{ $now }}}
      containerStatuses:
      {{ range .spec.containers }}
        - name: {{ .name }}
          image: {{ .image | Quote }}
          imageID: {{ .image | Quote }}
          ready: true
          started: true
          restartCount: 0
          state: {running: {startedAt: {{ $now }}}}
      {{ end }}
---
apiVersion: kwok.x-k8s.io/v1alpha1
kind: Stage
metadata: {name: pod-goes}
spec:
  resourceRef: {apiGroup: v1, kind: Pod}
  selector:
    matchExpressions:
      - {key: .metadata.deletionTimestamp, operator: Exists}
  next: {delete: true}
"""


def start(local: Local, count: int) -> None:
    """Make `count` nodes in a cluster without any, and wait until they are ready."""
    run = local.instance.run
    stages = run / "stages.yaml"
    stages.write_text(STAGES)
    built = subprocess.run([BUILD, "kwok"], check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    more = ["--manage-all-nodes", "--node-lease-duration-seconds=0"]
    command = [built.stdout.strip(), f"--config={stages}", f"--kubeconfig={local.instance.kubeconfig}", *more]
    local.components.start("kwok", command)
    client = new_client_from_config(str(local.instance.kubeconfig))  # kubectl makes ten a second
    for number in range(count):
        CoreV1Api(client).create_node(_node(f"node-{number:04d}"))
    local.kube.kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=120s", timeout=150)


def _node(name: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
        "status": {"capacity": CAPACITY, "allocatable": CAPACITY},
    }
