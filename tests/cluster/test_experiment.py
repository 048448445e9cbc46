"""The demo from `helm install` to Complete: two charts, real images, real Pods, a real S3 server."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kubesae.model.smollm2 import demo_model
from releases import CHARTS, Release, give_credentials, kubesae, s3_client, store_values, write_values

if TYPE_CHECKING:
    from harness import Kube

pytestmark = pytest.mark.timeout(1500)

D_MODEL, TOKENS = 576, 80_000  # the preset's 300,000 take 15 minutes on two old cores
MODEL = "SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def bucket(kube: Kube) -> str:
    """Give a bucket with the demo's model in it, as the README of the demo preset asks for."""
    name = "demo"
    folder = demo_model(lambda _: None)
    s3 = s3_client(kube)
    s3.create_bucket(Bucket=name)
    for path in sorted(folder.iterdir()):
        s3.upload_file(str(path), name, f"models/{MODEL}/{path.name}")
    return name


@pytest.fixture(scope="module")
def demo(kube: Kube, bucket: str, operator: None, images: dict[str, Any], tmp_path_factory: Any) -> Release:
    """Give the demo's release, not yet installed, in a namespace that enforces `restricted`."""
    namespace = kube.namespace("demo")
    give_credentials(kube, namespace)
    mine = {
        "experiment": {"data": f"s3://{bucket}/demo", "tokens": TOKENS, "pilot": {"tokens": 16_000, "chunk": 8_000}},
        "image": images["jobs"],
        "store": store_values(kube),
        "hub": {"offline": True},
        "phases": {"fetch": {"source": f"s3://{bucket}/models/{MODEL}"}},
    }
    values = write_values(tmp_path_factory.mktemp("values") / "my.yaml", mine)
    return Release(kube, namespace, "demo", [CHARTS / "experiment/presets/demo.yaml", values])


@pytest.fixture(scope="module")
def complete(demo: Release) -> Release:
    """Give the demo when all of it is done."""
    said = demo.install()
    assert "kubectl" in said, "the notes say what to watch"
    demo.wait_until_complete()
    return demo


def test_every_phase_ran_in_pods_and_the_table_tells(complete: Release, kube: Kube) -> None:
    status = complete.status()
    assert {phase["name"]: phase["state"] for phase in status["phases"]} == dict.fromkeys(
        ["prepare", "pilot", "collect", "verify", "train", "interpret"], "Complete"
    )
    assert status["tokens"] == TOKENS
    assert status["progress"] == "4/4"
    assert len(json.dumps(status)) <= 4096
    assert complete.condition("Complete")["status"] == "True"
    assert complete.condition("Failed").get("status", "False") == "False"
    table = kube.kubectl("get", "saex", "demo", f"--namespace={complete.namespace}")
    print(table)  # noqa: T201 - shown when a line below fails
    assert "Complete" in table
    assert "100.0%" in table
    described = kube.kubectl("describe", "saex", "demo", f"--namespace={complete.namespace}")
    assert "Shard" in described


def test_the_bucket_holds_what_verify_and_an_unmodified_client_expect(
    complete: Release, kube: Kube, bucket: str
) -> None:
    verified = kubesae(kube, "verify", "--data", f"s3://{bucket}/demo", "--mode", "full")
    assert verified.returncode == 0, verified.stderr
    assert "All chunks valid" in verified.stdout
    s3 = s3_client(kube)
    urls = s3.get_object(Bucket=bucket, Key="demo/activations/layer-012.txt")["Body"].read().decode().split()
    rows = 0
    for url in urls:
        body = s3.get_object(Bucket=bucket, Key=url.removeprefix(f"s3://{bucket}/"))["Body"].read()
        with tarfile.open(fileobj=io.BytesIO(body)) as tar:
            for member in tar:
                if member.name.endswith(".acts.npy"):
                    file = tar.extractfile(member)
                    assert file is not None
                    acts = np.load(io.BytesIO(file.read()), allow_pickle=False)
                    assert acts.shape[1] == D_MODEL
                    rows += len(acts)
    assert rows == TOKENS
    features = s3.list_objects_v2(Bucket=bucket, Prefix="demo/interpret/")["Contents"]
    assert any(item["Key"].endswith("interpret.json") for item in features)


def test_training_had_the_kernels_of_the_image(complete: Release, kube: Kube, bucket: str) -> None:
    s3 = s3_client(kube)
    found = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket, Prefix="demo/sae/")["Contents"]]
    key = next(key for key in found if key.endswith("/metadata.json"))
    metadata = json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])
    assert metadata["numerics"]["kernels"] == "native"


def test_the_log_of_a_shard_is_for_people(complete: Release, kube: Kube) -> None:
    pod = complete.pods("collect")[0]["metadata"]["name"]
    log = kube.logs(pod, namespace=complete.namespace)
    assert "tokens collected" in log
    assert "Traceback" not in log


def test_helm_test_finds_the_store_and_what_else_is_needed(complete: Release, kube: Kube) -> None:
    said = kube.helm("test", complete.name, f"--namespace={complete.namespace}", "--logs", "--timeout=120s")
    assert "Succeeded" in said
    assert complete.kube.s3["AWS_SECRET_ACCESS_KEY"] not in said


def test_installed_again_it_is_complete_and_starts_no_pod(complete: Release, kube: Kube) -> None:
    """All state is in the bucket: uninstalling removes the Jobs, not a byte of data."""
    complete.uninstall()
    assert kube.get("crd", "saeexperiments.kubesae.dev") is not None
    complete.install()
    complete.wait_until_complete(timeout=120)
    assert complete.pods() == []
