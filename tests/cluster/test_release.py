"""`kubesae release` and `kubesae retry` on real Jobs: what the operator does, by hand."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import yaml

from harness.tiny_images import BUSYBOX
from kubesae.cli.main import _run
from kubesae.experiment import canonical_json
from kubesae.ledger import keys
from kubesae.store import open_store
from small_experiment import VALUES, write_small

if TYPE_CHECKING:
    from pathlib import Path

    from harness import Kube

CHART = """\
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-prepare-0123abcd
  labels:
    kubesae.dev/experiment: {{ .Release.Name }}
    kubesae.dev/phase: prepare
    changes: {{ .Values.changes | quote }}
spec:
  backoffLimit: 0
  template:
    metadata: {labels: {kubesae.dev/phase: prepare}}
    spec: SPEC
"""


def pods(command: str) -> dict[str, Any]:
    secure = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    container = {"name": "kubesae", "image": BUSYBOX, "command": ["sh", "-c", command], "securityContext": secure}
    account = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    return {"restartPolicy": "Never", "containers": [container], "securityContext": account}


def job(experiment: str, phase: str, command: str = "true") -> dict[str, Any]:
    """Return a Job as the chart renders it."""
    labels = {"kubesae.dev/experiment": experiment, "kubesae.dev/phase": phase}
    spec = {"suspend": True, "backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pods(command)}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"{experiment}-{phase}-0123abcd", "labels": labels},
        "spec": spec,
    }


def described(experiment: str, data: str) -> dict[str, Any]:
    """Return the ConfigMap with an experiment, as the chart renders it."""
    values = VALUES | {"data": data}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": experiment},
        "data": {"experiment.yaml": canonical_json(values).decode()},
    }


@pytest.fixture
def bucket(kube: Kube, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give an empty bucket of the cluster's S3 server, and its environment, to this process too."""
    for name, value in kube.environment().items():
        monkeypatch.setenv(name, value)
    name = f"release-{secrets.token_hex(4)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}/data"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], namespace: str) -> Any:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = _run([*arguments, "--namespace", namespace])
        out, errors = capsys.readouterr()
        assert "Traceback" not in errors
        return code, out, errors

    return call


def live(kube: Kube, namespace: str, name: str) -> dict[str, Any]:
    return kube.get("job", name, namespace=namespace)


def ended(kube: Kube, namespace: str, name: str, condition: str) -> bool:
    conditions = live(kube, namespace, name).get("status", {}).get("conditions", [])
    return any(one["type"] == condition and one["status"] == "True" for one in conditions)


def test_a_phase_is_released_when_the_store_shows_the_ones_before(
    kube: Kube, namespace: str, bucket: str, run: Any
) -> None:
    objects = [job("exp", phase) for phase in ("prepare", "collect", "train")]
    kube.apply(described("exp", bucket), *objects, namespace=namespace)
    code, _, errors = run("release", "collect")
    assert code == 2
    assert errors == (
        "kubesae: Prepare is not complete yet, and collect works on what it leaves. `kubesae monitor` shows how far it "
        "is; --force releases collect all the same.\n"
    )
    assert live(kube, namespace, "exp-collect-0123abcd")["spec"]["suspend"]
    store = open_store(bucket)
    write_small(store)
    code, _, errors = run("release", "prepare")
    assert (code, errors.count("The store shows that prepare is complete")) == (2, 1)
    records = store.list(keys.LEDGER)
    store.delete(last := max(records))
    assert run("release", "collect") == (0, "✓ Released exp-collect-0123abcd\n", "")
    kube.wait_for(
        "it ran", lambda: ended(kube, namespace, "exp-collect-0123abcd", "Complete"), timeout=90, namespace=namespace
    )
    code, _, errors = run("release", "collect")
    assert (code, "Collect is released already" in errors) == (2, True)
    code, _, errors = run("release", "train")
    assert (code, "Collect is not complete yet" in errors) == (2, True), last
    assert run("release", "train", "--force")[0] == 0


def test_what_there_is_not_is_told(kube: Kube, namespace: str, bucket: str, run: Any) -> None:
    code, _, errors = run("release", "collect")
    assert (code, errors) == (
        2,
        f"kubesae: There is no experiment in namespace {namespace}. Give --namespace, or `helm install` one.\n",
    )
    held = job("exp", "train")
    held["metadata"]["annotations"] = {"kubesae.dev/hold": "true"}
    kube.apply(described("exp", bucket), job("exp", "prepare"), held, job("other", "prepare"), namespace=namespace)
    assert "There are several experiments" in run("release", "prepare")[2]
    assert "There is no experiment third in namespace" in run("release", "prepare", "--release", "third")[2]
    assert "exp has no phase 'verify'. It has prepare, train." in run("retry", "verify", "--release", "exp")[2]
    assert "phases.train.suspend is true" in run("release", "train", "--release", "exp", "--force")[2]
    assert "No job of prepare has ended Failed" in run("retry", "prepare", "--release", "exp")[2]


def test_a_failed_job_is_made_anew_and_helm_still_owns_it(
    kube: Kube, namespace: str, bucket: str, run: Any, tmp_path: Path
) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": "tiny", "version": "1.0.0"}))
    spec = yaml.safe_dump(pods("exit 2"), default_flow_style=True, width=10_000)
    (tmp_path / "templates" / "job.yaml").write_text(CHART.replace("SPEC", spec))
    (tmp_path / "values.yaml").write_text("changes: first\n")
    kube.helm("install", "exp", str(tmp_path), f"--namespace={namespace}")
    kube.apply(described("exp", bucket), namespace=namespace)
    name = "exp-prepare-0123abcd"
    kube.wait_for("it failed", lambda: ended(kube, namespace, name, "Failed"), timeout=90, namespace=namespace)
    before = live(kube, namespace, name)
    assert run("retry", "prepare") == (0, f"✓ Made anew: {name}\n", "")
    after = live(kube, namespace, name)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["metadata"]["annotations"]["meta.helm.sh/release-name"] == "exp"
    assert {**after["metadata"]["labels"]} == before["metadata"]["labels"]
    kube.wait_for("it ran again", lambda: ended(kube, namespace, name, "Failed"), timeout=90, namespace=namespace)
    kube.helm("upgrade", "exp", str(tmp_path), f"--namespace={namespace}", "--set=changes=second")
    upgraded = live(kube, namespace, name)
    assert upgraded["metadata"]["labels"]["changes"] == "second"
    assert upgraded["metadata"]["uid"] == after["metadata"]["uid"]
    kube.helm("uninstall", "exp", f"--namespace={namespace}", "--wait")
    assert live(kube, namespace, name) is None


def test_a_pytorchjob_is_released_and_made_anew(kube: Kube, namespace: str, bucket: str, run: Any) -> None:
    template = {"spec": pods("exit 2")}
    template["spec"]["containers"][0]["name"] = "pytorch"
    labels = {"kubesae.dev/experiment": "exp", "kubesae.dev/phase": "train"}
    replicas = {"Master": {"replicas": 1, "restartPolicy": "ExitCode", "template": template}}
    training = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "exp-train-0123abcd", "labels": labels},
        "spec": {"runPolicy": {"suspend": True}, "nprocPerNode": "1", "pytorchReplicaSpecs": replicas},
    }
    kube.apply(described("exp", bucket), training, namespace=namespace)

    def state(condition: str) -> Any:
        found = kube.get("pytorchjob", "exp-train-0123abcd", namespace=namespace)
        conditions = found.get("status", {}).get("conditions", [])
        true = any(one["type"] == condition and one["status"] == "True" for one in conditions)
        return found["metadata"]["uid"] if true else None

    kube.wait_for("it waits", lambda: state("Suspended"), timeout=60, namespace=namespace)
    assert run("release", "train", "--force") == (0, "✓ Released exp-train-0123abcd\n", "")
    before = kube.wait_for("it failed", lambda: state("Failed"), timeout=90, namespace=namespace)
    assert run("retry", "train") == (0, "✓ Made anew: exp-train-0123abcd\n", "")
    after = kube.wait_for("it ran again", lambda: state("Failed"), timeout=90, namespace=namespace)
    assert after != before
