"""What a cluster needs beside Kubernetes: DNS, an S3 server, and the controller of PyTorchJobs."""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING

from harness import tiny_images
from harness.control_plane import MASTERS
from harness.pki import Authority

if TYPE_CHECKING:
    from pathlib import Path

    from harness.components import Components
    from harness.instance import Instance
    from harness.kube import Kube
    from harness.programs import Programs

REGION = "us-east-1"
_S3_PORT = 9000
_KUBEFLOW = "kubeflow"
_OPERATOR = "training-operator"
_WEBHOOK_PORT = 9443
_PRIVATE_TMP = 'mount --bind "$0" /tmp; exec "$@"'


def start_dns(instance: Instance, programs: Programs, components: Components, authority: Authority) -> None:
    """Start CoreDNS: names of Services and Pods, and a clear no for every other."""
    kubeconfig = authority.kubeconfig(instance.run / "dns.kubeconfig", instance.server, "coredns", organisation=MASTERS)
    path = instance.run / "Corefile"
    # no cache: a worker that is looked up a moment too early is found a moment later
    path.write_text(
        f"""\
cluster.local in-addr.arpa {{
    bind {instance.node}
    errors
    ready {instance.node}:8181
    kubernetes {{
        kubeconfig {kubeconfig}
        pods insecure
    }}
}}
. {{
    bind {instance.node}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
    )
    components.start("coredns", [programs.coredns, "-conf", path], ready=f"http://{instance.node}:8181/ready")


def start_s3(instance: Instance, programs: Programs, components: Components) -> dict[str, str]:
    """Start the S3 server; return the variables by which clients, in Pods and on the machine, reach it."""
    folders = [instance.objects / name for name in ("objects", "metadata", "users")]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    credentials = instance.objects / "credentials.json"
    if not credentials.exists():
        credentials.touch(mode=0o600)
        made = {"ROOT_ACCESS_KEY": f"test{secrets.token_hex(8)}", "ROOT_SECRET_KEY": secrets.token_hex(20)}
        credentials.write_text(json.dumps(made))
    environment = json.loads(credentials.read_text())
    objects, metadata, users = folders
    command: list[str | Path] = [programs.versitygw, "--port", f"{instance.node}:{_S3_PORT}", "--region", REGION]
    command += ["--health", "/health", "--quiet", "--keep-alive", "--iam-cache-disable"]
    command += ["--access-log", instance.s3_log, "--iam-dir", users, "posix", "--sidecar", metadata, objects]
    endpoint = f"http://{instance.node}:{_S3_PORT}"
    components.start("s3", command, environment, ready=f"{endpoint}/health")
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": environment["ROOT_ACCESS_KEY"],
        "AWS_SECRET_ACCESS_KEY": environment["ROOT_SECRET_KEY"],
        "AWS_REGION": REGION,
    }


def start_training_operator(
    instance: Instance,
    programs: Programs,
    components: Components,
    authority: Authority,
    kube: Kube,
) -> None:
    """Start the controller of PyTorchJobs, out of the cluster, with the webhook that checks them."""
    own = Authority(instance.run / _KUBEFLOW, f"{_OPERATOR}-ca", _OPERATOR, plain=True)
    certificate, key = own.issue("tls", f"{_OPERATOR}.{_KUBEFLOW}.svc", hosts=[f"{_OPERATOR}.{_KUBEFLOW}.svc"])
    pairs = {"ca.crt": own.certificate, "ca.key": own.key, "tls.crt": certificate, "tls.key": key}
    # Where its webhook looks for them is fixed in the program, below /tmp: it gets a /tmp of its own.
    serving = instance.run / _KUBEFLOW / "tmp" / "k8s-webhook-server" / "serving-certs"
    serving.mkdir(parents=True)
    for name, path in pairs.items():
        (serving / name).write_bytes(path.read_bytes())
    kube.apply(programs.training_operator_crd.read_text())
    kube.apply(*_webhook(instance, {name: path.read_bytes() for name, path in pairs.items()}))
    kubeconfig = authority.kubeconfig(
        instance.run / "training-operator.kubeconfig", instance.server, _OPERATOR, organisation=MASTERS
    )
    command: list[str | Path] = ["unshare", "--mount", "/bin/sh", "-c", _PRIVATE_TMP, instance.run / _KUBEFLOW / "tmp"]
    command += [programs.training_operator, "--enable-scheme=pytorchjob", f"--kubeconfig={kubeconfig}"]
    command += [f"--webhook-server-port={_WEBHOOK_PORT}", f"--pytorch-init-container-image={tiny_images.BUSYBOX}"]
    command += ["--metrics-bind-address=127.0.0.1:8080", f"--health-probe-bind-address={instance.node}:8081"]
    components.start(_OPERATOR, command, ready=f"http://{instance.node}:8081/readyz")


def _webhook(instance: Instance, pairs: dict[str, bytes]) -> list[dict[str, object]]:
    """Return the objects by which the API server finds the webhook: a Service that leads out of the cluster."""
    encoded = {name: base64.b64encode(content).decode() for name, content in pairs.items()}
    named = {"name": _OPERATOR, "namespace": _KUBEFLOW}
    slice_labels = {"kubernetes.io/service-name": _OPERATOR, "endpointslice.kubernetes.io/managed-by": "kubesae"}
    rule = {"apiGroups": ["kubeflow.org"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"]}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _KUBEFLOW}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "training-operator-webhook-cert", "namespace": _KUBEFLOW},
            "data": encoded,
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": named,
            "spec": {"ports": [{"name": "webhook", "port": 443, "targetPort": _WEBHOOK_PORT}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": _OPERATOR, "namespace": _KUBEFLOW, "labels": slice_labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [instance.node], "conditions": {"ready": True}}],
            "ports": [{"name": "webhook", "port": _WEBHOOK_PORT, "protocol": "TCP"}],
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "validator.training-operator.kubeflow.org"},
            "webhooks": [
                {
                    "name": "validator.pytorchjob.training-operator.kubeflow.org",
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                    "failurePolicy": "Fail",
                    "clientConfig": {
                        "caBundle": encoded["ca.crt"],
                        "service": {**named, "path": "/validate-kubeflow-org-v1-pytorchjob"},
                    },
                    "rules": [{**rule, "resources": ["pytorchjobs"]}],
                }
            ],
        },
    ]
