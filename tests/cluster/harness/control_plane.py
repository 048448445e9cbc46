"""etcd, the API server, the controller manager and the scheduler: how each is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from harness.shell import run

if TYPE_CHECKING:
    from harness.components import Components
    from harness.instance import Instance
    from harness.pki import Authority
    from harness.programs import Programs

_ETCD = "http://127.0.0.1:2379"  # in the cluster's own network: neither the machine nor a Pod gets there
MASTERS = "system:masters"
_PATIENCE = "--node-monitor-grace-period=24h"


def start(
    instance: Instance, programs: Programs, components: Components, authority: Authority, *, watch_nodes: bool = True
) -> None:
    """Start them and wait until the API server answers. `watch_nodes`: a node that falls silent is lost."""
    _start_etcd(instance, programs, components)
    _start_api_server(instance, programs, components, authority)
    _start_controllers(instance, programs, components, authority, [] if watch_nodes else [_PATIENCE])
    _start_scheduler(instance, programs, components, authority)


def _start_etcd(instance: Instance, programs: Programs, components: Components) -> None:
    components.start(
        "etcd",
        [
            programs.etcd,
            f"--data-dir={instance.run / 'etcd'}",
            f"--listen-client-urls={_ETCD}",
            f"--advertise-client-urls={_ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--unsafe-no-fsync",  # a machine that loses power loses the cluster with it
            "--quota-backend-bytes=4294967296",
        ],
    )


def _start_api_server(instance: Instance, programs: Programs, components: Components, authority: Authority) -> None:
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    hosts = [instance.node, instance.first_service, "127.0.0.1", "localhost", *names]
    certificate, key = authority.issue("apiserver", "kube-apiserver", hosts=hosts)
    to_kubelet = authority.issue("apiserver-kubelet", "kube-apiserver-kubelet", organisation=MASTERS)
    tokens = instance.pki / "service-accounts.key"
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", tokens])
    policy = instance.run / "audit-policy.yaml"
    policy.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "audit.k8s.io/v1",
                "kind": "Policy",
                "omitStages": ["RequestReceived"],
                # what rights an account uses, which is what the audit log is read for; not the cluster's own traffic
                "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
            }
        )
    )
    components.start(
        "kube-apiserver",
        [
            programs.kubernetes / "kube-apiserver",
            f"--etcd-servers={_ETCD}",
            "--bind-address=0.0.0.0",
            "--secure-port=6443",
            f"--advertise-address={instance.node}",
            f"--service-cluster-ip-range={instance.services}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={authority.certificate}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={tokens}",
            f"--service-account-signing-key-file={tokens}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={authority.certificate}",
            f"--kubelet-client-certificate={to_kubelet[0]}",
            f"--kubelet-client-key={to_kubelet[1]}",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={instance.audit_log}",
            "--allow-privileged=true",
            "--profiling=false",
        ],
        ready=f"{instance.server}/readyz",
    )


def _start_controllers(
    instance: Instance, programs: Programs, components: Components, authority: Authority, more: list[str]
) -> None:
    path = instance.run / "controllers.kubeconfig"
    kubeconfig = authority.kubeconfig(path, instance.server, "system:kube-controller-manager")
    components.start(
        "kube-controller-manager",
        [
            programs.kubernetes / "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            f"--root-ca-file={authority.certificate}",
            f"--service-account-private-key-file={instance.pki / 'service-accounts.key'}",
            f"--cluster-signing-cert-file={authority.certificate}",
            f"--cluster-signing-key-file={authority.key}",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--profiling=false",
            *more,
        ],
    )


def _start_scheduler(instance: Instance, programs: Programs, components: Components, authority: Authority) -> None:
    path = instance.run / "scheduler.kubeconfig"
    kubeconfig = authority.kubeconfig(path, instance.server, "system:kube-scheduler")
    components.start(
        "kube-scheduler",
        [
            programs.kubernetes / "kube-scheduler",
            f"--kubeconfig={kubeconfig}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--profiling=false",
        ],
    )
