"""What users get wrong, each on a real cluster: a condition and an event say what to do. And the operator's rights.

All experiments are installed at once, and the tests look at what the operator says of each.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from charts import merged
from harness import ClusterError
from releases import (
    CHARTS,
    OPERATOR_NAMESPACE,
    SECRET,
    Release,
    give_credentials,
    kubesae,
    s3_client,
    store_values,
    write_values,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness import Kube, Local

pytestmark = pytest.mark.timeout(600)

BUCKET = "troubles"
Right = tuple[str, str, str]
"""verb, group, resource"""

SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
PHASES = ("prepare", "pilot", "collect", "verify", "train", "interpret")


def only(*phases: str) -> dict[str, Any]:
    """Return values that switch all other phases off."""
    return {"phases": {phase: {"enabled": False} for phase in ("fetch", *PHASES) if phase not in phases}}


# Name of a namespace: what the values say there, beyond the common ones.
MISTAKES: dict[str, dict[str, Any]] = {
    "no-secret": {"store": {"existingSecret": "forgotten"}},
    "no-authority": {"store": {"caBundle": {"configMap": "forgotten"}}},
    "no-bucket": {"experiment": {"data": "s3://no-such-bucket/data"}},
    "wrong-key": {},
    "no-image": {"image": {"tag": "forgotten"}},
    "no-token": {"hub": {"existingSecret": "forgotten"}},
    "quota": {},
    "few-gpus": merged(only("pilot"), {"phases": {"pilot": {"gpus": 16}}}),
    "other-data": {"experiment": {"layers": [7]}},
    "no-data": only("train"),
}
# What is said of each: condition, its reason, words of its message.
SAID: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "no-secret": ("Ready", "SecretMissing", ("forgotten", "Create it")),
    "no-authority": ("Ready", "SecretMissing", ("ConfigMap forgotten", "Create it")),
    "no-bucket": ("Ready", "BucketMissing", ("no-such-bucket", "Create the bucket")),
    "wrong-key": ("Ready", "CredentialsRefused", (SECRET, "Correct")),
    "no-image": ("Degraded", "ImageMissing", ("forgotten", "image.registry")),
    "no-token": ("Degraded", "ConfigMissing", ("forgotten", "Create it")),
    "quota": ("Degraded", "QuotaExceeded", ("exceeded quota", "Raise the quota")),
    "few-gpus": ("Degraded", "Unschedulable", ("nvidia.com/gpu", "phases.pilot.gpus")),
    "other-data": ("Failed", "IdentityMismatch", ("layers: [0] there, [7] here", "Set `data` to another prefix")),
    "no-data": ("Failed", "JobFailed", ("kubectl logs", "kubesae retry train")),
}


@pytest.fixture(scope="module")
def troubled(
    kube: Kube, operator: None, images: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Release]]:
    """Install all of them, and two that share a prefix."""
    folder = tmp_path_factory.mktemp("values")
    s3_client(kube).create_bucket(Bucket=BUCKET)
    made = kubesae(kube, "fixture", f"s3://{BUCKET}/other-data", "--tokens", "4096", "--layers", "0")
    assert made.returncode == 0, made.stderr
    common = {
        "experiment": {
            "model": "organisation/model",
            "layers": [0],
            "corpora": [{"name": "text", "source": "/no/such/text"}],
            "num_shards": 2,
            "sae": [{"name": "one", "k": 4}],
        },
        "image": images["jobs"],
        "store": store_values(kube),
        "hub": {"offline": True},
        "phases": {phase: {"resources": SMALL} for phase in PHASES} | {"train": {"resources": SMALL, "gpus": 0}},
    }
    releases = {}
    for name, mistake in MISTAKES.items():
        namespace = kube.namespace(name)
        give_credentials(kube, namespace, **({"AWS_SECRET_ACCESS_KEY": "wrong"} if name == "wrong-key" else {}))
        mine = merged(common, {"experiment": {"data": f"s3://{BUCKET}/{name}"}}, mistake)
        releases[name] = Release(kube, namespace, name, [write_values(folder / f"{name}.yaml", mine)])
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}}
    kube.apply({**quota, "spec": {"hard": {"requests.memory": "1Mi"}}}, namespace=releases["quota"].namespace)
    namespace = kube.namespace("shared")
    give_credentials(kube, namespace)
    values = write_values(folder / "shared.yaml", merged(common, {"experiment": {"data": f"s3://{BUCKET}/shared"}}))
    for name in ("first", "second"):
        releases[name] = Release(kube, namespace, name, [values])
    for release in releases.values():
        release.install()
    yield releases
    for namespace in {release.namespace for release in releases.values()}:
        kube.delete_namespace(namespace)


def until_said(release: Release, kind: str, reason: str) -> str:
    """Wait until a condition has the reason; return its message."""
    said = lambda: release.condition(kind) if release.condition(kind).get("reason") == reason else None  # noqa: E731
    found: dict[str, Any] = release.kube.wait_for(f"{kind} says {reason}", said, timeout=150)
    return str(found["message"])


def until_told(release: Release, reason: str) -> str:
    """Wait for an event about the experiment with the reason; return what it says."""
    selector = f"--field-selector=involvedObject.kind=SAEExperiment,involvedObject.name={release.name},reason={reason}"
    events = release.kube.wait_for(
        f"an event {reason}", lambda: release.kube.get("events", selector, namespace=release.namespace), timeout=60
    )
    return str(events[0]["message"])


@pytest.mark.parametrize("name", MISTAKES)
def test_a_condition_and_an_event_say_what_to_do(troubled: dict[str, Release], name: str) -> None:
    kind, reason, words = SAID[name]
    message = until_said(troubled[name], kind, reason)
    print(f"{name}: {message}")  # noqa: T201 - shown when a line below fails
    assert [word for word in words if word not in message] == []
    assert until_told(troubled[name], reason)[:100] == message[:100]


def test_of_two_at_one_prefix_the_second_waits_and_both_are_told(troubled: dict[str, Release]) -> None:
    first, second = troubled["first"], troubled["second"]
    assert f"{second.namespace}/second" in until_said(first, "Degraded", "PrefixShared")
    assert "collects nothing" in until_said(second, "Degraded", "PrefixShared")
    assert second.pods() == []


def test_a_user_s_mistake_is_not_tried_again(troubled: dict[str, Release]) -> None:
    release = troubled["no-data"]
    until_said(release, "Failed", "JobFailed")
    assert len(release.pods("train")) <= 1
    described = release.kube.kubectl("describe", "saex", "no-data", f"--namespace={release.namespace}")
    assert "JobFailed" in described


def test_what_is_mended_goes_on_by_itself(troubled: dict[str, Release]) -> None:
    release = troubled["no-secret"]
    until_said(release, "Ready", "SecretMissing")
    give_credentials(release.kube, release.namespace, "forgotten")
    until_said(release, "Ready", "AsExpected")
    assert release.condition("Ready")["status"] == "True"


def granted(release: Release) -> set[Right]:
    """Return the rights that the operator's chart and a release's give to the operator."""
    rendered = [
        release.kube.helm("template", "kubesae-operator", str(CHARTS / "operator")),
        release.kube.helm("get", "manifest", release.name, f"--namespace={release.namespace}"),
    ]
    objects = [one for text in rendered for one in yaml.safe_load_all(text) if one and one["kind"].endswith("Role")]
    return {
        (verb, group, resource)
        for rule in [rule for one in objects for rule in one["rules"]]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def used(log: Path) -> set[Right]:
    """Return the rights that the operator has made use of, or tried to, by the API server's audit log."""
    account = f"system:serviceaccount:{OPERATOR_NAMESPACE}:kubesae-operator"
    found = set()
    with log.open() as lines:
        for line in lines:
            entry = json.loads(line)
            if entry["user"]["username"] == account and "objectRef" in entry:
                what = entry["objectRef"]
                resource = "/".join(part for part in (what["resource"], what.get("subresource", "")) if part)
                found.add((entry["verb"], what.get("apiGroup", ""), resource))
    return found


def test_rights_granted_are_rights_used(troubled: dict[str, Release], local: Local) -> None:
    log, given = local.instance.audit_log, granted(troubled["no-authority"])
    with contextlib.suppress(ClusterError):  # what differs, below, says more
        local.kube.wait_for("the log has them all", lambda: given <= used(log), timeout=150)
    assert (given - used(log), used(log) - given) == (set(), set()), "never used, and not granted"
