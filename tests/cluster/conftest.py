"""Fixtures for tests on a real Kubernetes: the cluster that KUBECONFIG names, or one brought up for the session."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from harness import CannotRunError, Given, Kube, Local
from releases import CHARTS, OPERATOR_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if not item.get_closest_marker("timeout"):
                # the first test's fixtures bring the cluster up, and build its programs if need be
                item.add_marker(pytest.mark.timeout(300, func_only=True))


@pytest.fixture(scope="session")
def any_cluster() -> Iterator[Local | Given]:
    """Give the cluster that is there, or a new one."""
    given = os.environ.get("KUBECONFIG")
    if given:
        attached = Local.attached()
        ours = attached is not None and Path(given) == attached.instance.kubeconfig
        yield attached if attached and ours else Given.from_environment()
        return
    try:
        local = Local.up()
    except CannotRunError as error:
        _without(str(error))
    with local:
        yield local


@pytest.fixture(scope="session")
def kube(any_cluster: Local | Given) -> Kube:
    """Give kubectl, helm and the rest for the cluster."""
    return any_cluster.kube


@pytest.fixture(scope="session")
def local(any_cluster: Local | Given) -> Local:
    """Give a cluster whose components a test may stop, which a cluster that is somebody else's does not allow."""
    if not isinstance(any_cluster, Local):
        _without("KUBECONFIG names a cluster that this test may not break")
    return any_cluster


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """Give a new namespace that lets in restricted Pods only."""
    name = kube.namespace(f"test-{secrets.token_hex(4)}")
    yield name
    kube.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def operator(kube: Kube, images: dict[str, dict[str, str]]) -> Iterator[None]:
    """Run the operator, as a user installs it: once a cluster, in a namespace of its own."""
    kube.namespace(OPERATOR_NAMESPACE)
    where = f"--namespace={OPERATOR_NAMESPACE}"
    image = f"--set-json=image={json.dumps(images['operator'])}"
    chart = str(CHARTS / "operator")
    kube.helm("upgrade", "--install", "kubesae-operator", chart, where, image, "--wait", "--timeout=180s")
    yield
    kube.helm("uninstall", "kubesae-operator", where, "--wait", "--timeout=120s")


def _without(reason: str) -> NoReturn:
    if os.environ.get("KUBESAE_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"KUBESAE_REQUIRE_CLUSTER=1 asks for this test, but: {reason}")
    pytest.skip(f"no cluster: {reason}")
