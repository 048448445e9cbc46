"""A cluster comes up on the remains of one that crashed, bears the loss of its parts, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from harness import ClusterError, Instance, Local
from harness.teardown import kernel_settings
from harness.tiny_images import BUSYBOX
from releases import s3_client

HERE = Path(__file__).parent
UP = "import sys, time; from harness import *; Local.up(Instance(sys.argv[1])); time.sleep(600)"


@pytest.fixture
def spare():
    """Give a cluster beside the one that other tests use."""
    instance = Instance(f"spare{secrets.token_hex(2)}")
    yield instance
    shutil.rmtree(instance.folder)


def test_a_cluster_survives_a_crashed_start_and_leaves_nothing_behind(local: Local, spare: Instance):
    before = traces(spare)
    crash_while_starting(spare)
    with Local.up(spare) as cluster:
        inside = namespace_of(cluster.world.init.pid)
        assert processes_in(inside)
        with pytest.raises(ClusterError, match=rf"'{spare.name}' is up already.*export KUBECONFIG=.*make cluster-down"):
            Local.up(spare)
        run_a_pod(cluster)
        bear_restarts(cluster)
        lose_it_and_keep_the_bucket(cluster)
        inside = namespace_of(cluster.world.init.pid)
    assert processes_in(inside) == []
    assert traces(spare) == before
    assert {path.name for path in spare.folder.iterdir()} == {"containerd", "bin", "lock"}


def crash_while_starting(spare):
    process = subprocess.Popen([sys.executable, "-c", UP, spare.name], env={**os.environ, "PYTHONPATH": str(HERE)})
    wait_until((spare.logs / "kubelet.log").exists)
    init = int((spare.run / "init.pid").read_text())
    with pytest.raises(ClusterError, match=f"is being brought up or taken down by process {process.pid}"):
        Local.up(spare)
    inside = namespace_of(init)
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not processes_in(inside))


def run_a_pod(cluster):
    container = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", "echo hello; sleep 600"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    cluster.kube.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec})
    cluster.kube.wait_for("the Pod says hello", lambda: cluster.kube.get("pod", "pod")["status"]["phase"] == "Running")
    cluster.kube.wait_for("the Pod says hello", lambda: cluster.kube.logs("pod") == "hello\n")


def bear_restarts(cluster):
    cluster.components.restart("kube-apiserver", signal.SIGKILL)
    cluster.components.restart("s3")
    cluster.restart_kubelet()
    pod = cluster.kube.get("pod", "pod")
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    health = cluster.kube.s3["AWS_ENDPOINT_URL"] + "/health"
    wait_until(lambda: answers(health, seconds=5))
    cluster.components.pause("s3")
    assert not answers(health, seconds=0.5)
    cluster.components.go_on("s3")
    assert answers(health, seconds=5)


def lose_it_and_keep_the_bucket(cluster):
    first = cluster.world.init
    s3 = s3_client(cluster.kube)
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="object", Body=b"content")
    cluster.replace()
    assert not first.alive()
    assert s3.get_object(Bucket="kept", Key="object")["Body"].read() == b"content"
    s3.close()
    assert cluster.kube.get("pods", "--all-namespaces") == []
    assert cluster.kube.get("nodes")[0]["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    run_a_pod(cluster)


def answers(url, *, seconds):
    with suppress(urllib.error.URLError, TimeoutError, ConnectionError), urllib.request.urlopen(url, timeout=seconds):
        return True
    return False


def wait_until(happened, *, seconds=90):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def namespace_of(pid):
    return Path(f"/proc/{pid}/ns/pid").readlink()


def processes_in(namespace):
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (path / "ns" / "pid").readlink() == namespace:
                found.append(int(path.name))
    return found


def traces(instance):
    """Return what a cluster could leave on the machine: of what others change too, only what is its own."""
    links = [device["ifname"] for device in json.loads(output_of("ip", "-json", "link"))]
    return {
        "tables": output_of("nft", "list", "tables"),
        "links": [name for name in links if name == instance.link],
        "routes": output_of("ip", "route", "show", "root", instance.network),
        "mounts": [line for line in Path("/proc/mounts").read_text().splitlines() if str(instance.folder) in line],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/*{instance.name}*")],
        "kernel": kernel_settings(),
        "processes": [path for path in Path("/proc").glob("[0-9]*/cmdline") if instance.name in command_line(path)],
    }


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def command_line(path):
    with suppress(OSError):
        return path.read_text()
    return ""
