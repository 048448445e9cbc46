"""What `kubesae release` and `retry` say of a cluster that refuses, is silent or is not there; how they read one."""

from __future__ import annotations

import base64
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kubesae.cli.main import _run
from kubesae.errors import ConfigError
from kubesae.release import Cluster, PhaseJob
from kubesae.release.cluster import QUEUE
from kubesae.release.run import again, release
from kubesae.store import S3Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB = ("batch", "v1", "jobs", "Job")
TRAINING = ("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob")


class FakeApi(ThreadingHTTPServer):
    """Answers with `objects` by path, else with `status`; `changes` are the bodies of patches, by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, Any] = {}
        self.changes: dict[str, Any] = {}
        self.status = 404


class Handler(BaseHTTPRequestHandler):
    server: FakeApi

    def do_GET(self) -> None:
        self.answer(self.server.objects.get(self.path.partition("?")[0]))

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.changes[self.path.partition("?")[0]] = body
        self.answer(body)

    def answer(self, found: Any) -> None:
        body = json.dumps(found or {"kind": "Status", "status": "Failure"}).encode()
        self.send_response(200 if found else self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


def kubeconfig(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "research"}}],
        "current-context": "x",
    }
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    server = FakeApi()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    kubeconfig(tmp_path, f"http://127.0.0.1:{server.server_address[1]}", monkeypatch)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_stores_settings_are_those_of_the_pods(api: FakeApi) -> None:
    store = {
        "secretName": "s3",
        "endpoint": "https://s3",
        "region": "eu",
        "caConfigMap": {"name": "ca", "key": "ca.crt"},
    }
    encoded = {
        name: base64.b64encode(value.encode()).decode()
        for name, value in (("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key"))
    }
    api.objects = {
        "/apis/kubesae.dev/v1alpha1/namespaces/research/saeexperiments/exp": {"spec": {"store": store}},
        "/api/v1/namespaces/research/secrets/s3": {"kind": "Secret", "apiVersion": "v1", "data": encoded},
        "/api/v1/namespaces/research/configmaps/ca": {
            "kind": "ConfigMap",
            "apiVersion": "v1",
            "data": {"ca.crt": "PEM"},
        },
    }
    cluster = Cluster.connect(None)
    settings = cluster.store_settings(cluster.spec("exp"))
    assert settings is not None
    assert Path(settings.ca_bundle).read_text() == "PEM"
    Path(settings.ca_bundle).unlink()
    assert settings == S3Settings("https://s3", "eu", settings.ca_bundle, "id", "key", "")
    assert cluster.store_settings(cluster.spec("another")) is None


def test_with_a_queue_the_jobs_are_handed_to_it(api: FakeApi) -> None:
    place = "/apis/batch/v1/namespaces/research/jobs"
    labels = {"kubesae.dev/experiment": "exp", "kubesae.dev/phase": "collect"}
    item = {"metadata": {"name": "exp-collect", "labels": labels}, "spec": {"suspend": True}}
    api.objects = {
        place: {"items": [item]},
        "/apis/kubesae.dev/v1alpha1/namespaces/research/saeexperiments/exp": {"spec": {"queueName": "gpus"}},
    }
    cluster = Cluster.connect(None)
    assert release(cluster, cluster.jobs(), "collect", force=True) == ["exp-collect"]
    assert api.changes == {f"{place}/exp-collect": {"metadata": {"labels": {QUEUE: "gpus"}}}}
    labels[QUEUE] = "gpus"
    with pytest.raises(ConfigError, match="Collect is released already"):
        release(cluster, cluster.jobs(), "collect", force=True)


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (
            403,
            2,
            "The cluster refuses to list jobs in namespace research (403 Forbidden). Use a context whose user may",
        ),
        (500, 1, "The cluster could not list jobs in namespace research (500 Internal Server Error). Look at it"),
    ],
)
def test_a_refusal_is_told(
    api: FakeApi, capsys: pytest.CaptureFixture[str], status: int, code: int, message: str
) -> None:
    api.status = status
    assert _run(["release", "collect"]) == code
    assert message in capsys.readouterr().err


def test_a_silent_cluster_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig(tmp_path, "http://127.0.0.1:9", monkeypatch)
    assert _run(["retry", "train"]) == 1
    assert "The cluster does not answer" in capsys.readouterr().err


def test_without_a_kubeconfig(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    assert _run(["release", "collect"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "kubesae: There is no cluster to talk to (Invalid kube-config file. No configuration found)."
    )
    assert "Set KUBECONFIG to the file that `kubectl` uses." in error


def test_without_the_package(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert _run(["release", "collect"]) == 2
    assert "needs the package 'kubernetes', which is not installed: `pip install 'kubesae[kubernetes]'`" in (
        capsys.readouterr().err
    )


def test_a_job_that_is_made_anew_is_the_charts_and_not_the_controllers() -> None:
    own = {"controller-uid": "1", "batch.kubernetes.io/controller-uid": "1", "job-name": "x"}
    template = {"metadata": {"labels": {"kubesae.dev/phase": "collect", **own}}, "spec": {"containers": []}}
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "x",
            "namespace": "research",
            "uid": "1",
            "resourceVersion": "7",
            "labels": {"kubesae.dev/phase": "collect", **own},
            "annotations": {"meta.helm.sh/release-name": "exp", "batch.kubernetes.io/job-tracking": ""},
        },
        "spec": {"completions": 4, "suspend": False, "selector": {"matchLabels": own}, "template": template},
        "status": {"failed": 4},
    }
    assert again(PhaseJob(JOB, body)).body == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "x",
            "namespace": "research",
            "labels": {"kubesae.dev/phase": "collect"},
            "annotations": {"meta.helm.sh/release-name": "exp"},
        },
        "spec": {
            "completions": 4,
            "template": {"metadata": {"labels": {"kubesae.dev/phase": "collect"}}, "spec": {"containers": []}},
        },
    }


def test_a_pytorchjob_is_suspended_in_its_run_policy() -> None:
    body = {"metadata": {"name": "x", "labels": {}}, "spec": {"runPolicy": {"suspend": True}}}
    assert PhaseJob(TRAINING, body).suspended
    body["spec"]["runPolicy"] = {}
    assert not PhaseJob(TRAINING, body).suspended
