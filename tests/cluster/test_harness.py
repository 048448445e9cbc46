"""The cluster is a real one: Pods are scheduled, isolated, named and logged, and nothing of it is left behind."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from harness import ClusterError, Kube, Local, image_store, node, tiny_images
from harness.tiny_images import BUSYBOX

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("local")  # somebody else's cluster is not the harness's work

SECURE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def spec(command, *, gpus=0, name="main", **more):
    container = {"name": name, "image": BUSYBOX, "command": ["sh", "-c", command], "securityContext": SECURE}
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": gpus}}
    security = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    return {"containers": [container], "securityContext": security, "terminationGracePeriodSeconds": 0, **more}


def pod(name, command, *, labels=None, **more):
    metadata = {"name": name, "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec(command, **more)}


def phase(kube, name, namespace):
    return kube.get("pod", name, namespace=namespace)["status"]["phase"]


def test_a_pod_resolves_a_service_by_name_and_reaches_it_and_the_s3_server(kube: Kube, namespace: str):
    serve = "mkdir /tmp/www; echo served >/tmp/www/page; exec httpd -f -p 8080 -h /tmp/www"
    scratch = {"volumes": [{"name": "scratch", "emptyDir": {}}]}
    server = pod("server", serve, labels={"app": "server"}, **scratch)
    server["spec"]["containers"][0]["volumeMounts"] = [{"name": "scratch", "mountPath": "/tmp"}]
    service = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
    kube.apply(
        server,
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": service},
        pod(
            "client",
            # nslookup, because a static program does not resolve names by itself
            f"until address=$(nslookup web.{namespace}.svc.cluster.local | sed -n 's/^Address: //p'); "
            "wget -q -O- http://$address/page; do sleep 0.2; done; echo $address; "
            f"wget -q -O- {kube.s3['AWS_ENDPOINT_URL']}/health",
            restartPolicy="Never",
        ),
        namespace=namespace,
    )
    kube.wait_for("the client is done", lambda: phase(kube, "client", namespace) == "Succeeded", namespace=namespace)
    address = kube.get("service", "web", namespace=namespace)["spec"]["clusterIP"]
    said = kube.logs("client", namespace=namespace)
    assert address in said
    assert "served" in said
    assert "OK" in said


def test_a_restricted_namespace_refuses_a_pod_that_may_be_root(kube: Kube, namespace: str):
    rooted = pod("rooted", "true")
    rooted["spec"]["securityContext"] = {}
    with pytest.raises(ClusterError, match="violates PodSecurity"):
        kube.apply(rooted, namespace=namespace)


def test_four_pairs_of_gpus_are_placed_and_a_ninth_gpu_is_not(kube: Kube, namespace: str):
    names = [f"pair-{number}" for number in range(4)]
    kube.apply(*(pod(name, "sleep 600", gpus=2) for name in names), namespace=namespace)
    kube.wait_for(
        "four pairs run",
        lambda: all(phase(kube, name, namespace) == "Running" for name in names),
        namespace=namespace,
    )
    kube.apply(pod("ninth", "sleep 600", gpus=1), namespace=namespace)

    def refused():
        conditions = kube.get("pod", "ninth", namespace=namespace)["status"].get("conditions", [])
        return [one for one in conditions if one.get("reason") == "Unschedulable"]

    (condition,) = kube.wait_for("the ninth is looked at", refused, namespace=namespace)
    assert "Insufficient nvidia.com/gpu" in condition["message"]


def test_a_pytorchjob_of_two_elastic_workers_succeeds(kube: Kube, namespace: str):
    command = "echo $PET_NNODES at $PET_RDZV_ENDPOINT; until nslookup ${PET_RDZV_ENDPOINT%:*} | grep ^Name; do :; done"
    worker = {"replicas": 2, "restartPolicy": "ExitCode", "template": {"spec": spec(command, name="pytorch")}}
    elastic = {"rdzvBackend": "c10d", "minReplicas": 2, "maxReplicas": 2, "maxRestarts": 3}
    job = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "train"},
        "spec": {"pytorchReplicaSpecs": {"Worker": worker}, "elasticPolicy": elastic},
    }
    kube.apply(job, namespace=namespace)

    def succeeded():
        status = kube.get("pytorchjob", "train", namespace=namespace).get("status", {})
        return any(one["type"] == "Succeeded" and one["status"] == "True" for one in status.get("conditions", []))

    kube.wait_for("the PyTorchJob succeeded", succeeded, namespace=namespace)
    assert "2:2 at train-worker-0:" in kube.logs("train-worker-1", namespace=namespace)


def test_the_training_operator_keeps_the_authority_whose_certificates_it_serves(kube: Kube, local: Local):
    webhook = kube.get("validatingwebhookconfiguration", "validator.training-operator.kubeflow.org")
    bundle = base64.b64decode(webhook["webhooks"][0]["clientConfig"]["caBundle"])
    assert bundle == (local.instance.run / "kubeflow" / "training-operator-ca.crt").read_bytes()


def test_the_webhook_refuses_a_pytorchjob_without_the_container_it_looks_for(kube: Kube, namespace: str):
    master = {"replicas": 1, "template": {"spec": spec("true", name="other")}}
    job = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "train"},
        "spec": {"pytorchReplicaSpecs": {"Master": master}},
    }
    with pytest.raises(ClusterError, match=r"validator\.pytorchjob.* denied the request"):
        kube.apply(job, namespace=namespace)


def test_a_claim_gives_restricted_pods_a_folder_of_the_node(kube: Kube, namespace: str, local: Local, tmp_path: Path):
    kube.folder_claim("models", tmp_path / "models", namespace=namespace)
    writer = pod(
        "writer",
        "echo kept >/models/file",
        restartPolicy="Never",
        volumes=[{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
    )
    writer["spec"]["containers"][0]["volumeMounts"] = [{"name": "models", "mountPath": "/models"}]
    kube.apply(writer, namespace=namespace)
    kube.wait_for("it is written", lambda: phase(kube, "writer", namespace) == "Succeeded", namespace=namespace)
    assert (tmp_path / "models" / "file").read_text() == "kept\n"


def test_what_does_not_happen_in_time_is_explained(kube: Kube, namespace: str):
    kube.apply(pod("talker", "echo something is wrong; sleep 600"), namespace=namespace)
    kube.wait_for("it runs", lambda: phase(kube, "talker", namespace) == "Running", namespace=namespace)
    with pytest.raises(ClusterError, match="not within 0 s: pigs fly") as raised:
        kube.wait_for("pigs fly", lambda: False, timeout=0, namespace=namespace)
    assert "something is wrong" in str(raised.value)
    assert "Started" in str(raised.value)


def test_a_killed_container_is_started_again(kube: Kube, namespace: str, local: Local):
    kube.apply(pod("phoenix", "sleep 600"), namespace=namespace)
    kube.wait_for("it runs", lambda: phase(kube, "phoenix", namespace) == "Running", namespace=namespace)
    local.kill_container("phoenix", namespace=namespace)

    def ended():
        (status,) = kube.get("pod", "phoenix", namespace=namespace)["status"]["containerStatuses"]
        return status.get("lastState", {}).get("terminated")

    assert kube.wait_for("it is started again", ended, namespace=namespace)["exitCode"] == 137


def test_an_image_whose_name_another_takes_is_removed_and_its_pods_run_on(
    kube: Kube, namespace: str, local: Local, tmp_path: Path
):
    name = f"kubesae.test/{namespace}:1"  # new, as its content is

    def images(*arguments):
        return local.world.run([*node.ctr(local.programs), "images", *arguments]).split()

    def load(content):
        (tmp_path / "content").write_text(f"{content} of {namespace}")
        files = {"bin/busybox": tiny_images._BUSYBOX, "content": tmp_path / "content"}
        before = image_store.held_blobs(local.world, local.programs)
        local.load_image(tiny_images._archive(tmp_path / "image.tar", name, files, {}, {}))
        return image_store.held_blobs(local.world, local.programs) - before

    first = load("first")
    kube.wait_for("the first has its second name", lambda: first & set(images("list", "--quiet")))
    old = pod("old", "")
    old["spec"]["containers"][0] |= {"image": name, "command": ["/bin/busybox", "sleep", "600"]}
    kube.apply(old, namespace=namespace)
    kube.wait_for("it runs", lambda: phase(kube, "old", namespace) == "Running", namespace=namespace)

    second = load("second")
    held = image_store.held_blobs(local.world, local.programs)
    assert not first & held
    assert second
    assert second <= held
    said = kube.kubectl("exec", "old", f"--namespace={namespace}", "--", "/bin/busybox", "cat", "/content")
    assert said == f"first of {namespace}"
    images("remove", "--sync", name)
