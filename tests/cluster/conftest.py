"""Fixtures for tests on a real Kubernetes: the cluster that KUBECONFIG names, or one brought up for the session."""

from __future__ import annotations

import os
import random
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from faults import Faults
from harness import CannotRunError, Given, Kube, Local
from harness.images import JOBS, OPERATOR, chart_values, load_images
from releases import CHARTS, OPERATOR_NAMESPACE, install_operator, operator_installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiny import Run, Tiny

HERE = Path(__file__).parent
FAULTS = Faults()
SEED = int(os.environ.get("KUBESAE_SEED") or secrets.randbelow(1_000_000))


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
    kube.delete_namespace(name)


@pytest.fixture(scope="session")
def crd(kube: Kube) -> None:
    """Have the CRD on the cluster, by whoever: an operator that is there, or one without a Pod."""
    if kube.get("crd", "saeexperiments.kubesae.dev") is None:
        where = [f"--namespace={OPERATOR_NAMESPACE}", "--create-namespace", "--set=replicas=0"]
        kube.helm("install", "kubesae-operator", str(CHARTS / "operator"), *where)


@pytest.fixture(scope="session")
def images(any_cluster: Local | Given) -> dict[str, dict[str, str]]:
    """Build both images from their Dockerfiles, give them to the cluster, and return the charts' `image` of each."""
    load_images(any_cluster)
    return {"jobs": chart_values(JOBS), "operator": chart_values(OPERATOR)}


@pytest.fixture(scope="session")
def operator(kube: Kube, images: dict[str, dict[str, str]]) -> Iterator[None]:
    """Run the operator, as a user installs it: once a cluster. One that is there already stays when we are done."""
    there = operator_installed(kube)
    install_operator(kube, images["operator"])
    yield
    if not there:
        kube.helm("uninstall", "kubesae-operator", f"--namespace={OPERATOR_NAMESPACE}", "--wait", "--timeout=120s")


@pytest.fixture(scope="session")
def tiny(
    kube: Kube, operator: None, images: dict[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Tiny:
    """Give the experiment of the fault tests."""
    from tiny import Tiny  # loads torch

    return Tiny.made(kube, images["jobs"], tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def undisturbed(kube: Kube, tiny: Tiny) -> Run:
    """Give a collection to which nothing has happened, and which is complete."""
    run = tiny.run(kube.namespace(f"undisturbed-{secrets.token_hex(4)}"), "collect")
    run.install()
    run.wait_until_complete(timeout=300)
    kube.delete_namespace(run.namespace)
    return run


@pytest.fixture
def faults() -> Faults:
    """Give the count of what the fault tests of this session do."""
    FAULTS.tests += 1
    return FAULTS


@pytest.fixture
def moments(request: pytest.FixtureRequest) -> random.Random:
    """Give a test's random moments: KUBESAE_SEED repeats those of a former session."""
    return random.Random(f"{SEED} {request.node.name}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was done to the cluster, and what came of it."""
    if FAULTS.tests:
        terminalreporter.section(f"faults on the cluster (KUBESAE_SEED={SEED})")
        terminalreporter.write_line(FAULTS.line())


def _without(reason: str) -> NoReturn:
    if os.environ.get("KUBESAE_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"KUBESAE_REQUIRE_CLUSTER=1 asks for this test, but: {reason}")
    pytest.skip(f"no cluster: {reason}")
