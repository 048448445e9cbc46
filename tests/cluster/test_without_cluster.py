"""Where no cluster can be had, its tests are skipped by name with the reason; where one is required, they fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TEST = HERE / "test_harness.py"


def run_a_cluster_test(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one where nothing is built and there is nothing to build with."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "PYTEST"))}
    clean |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "KUBESAE_CACHE": str(cache), **environment}
    command = [sys.executable, "-m", "pytest", "-q", "-k", "ninth_gpu", str(TEST)]
    return subprocess.run(
        command, env=clean, cwd=HERE.parents[1], capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="without root the reason is another one")
def test_a_test_is_skipped_with_the_reason(tmp_path):
    done = run_a_cluster_test(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "no cluster: `tools/build-server kubernetes` failed: build-server: there is no 'go' on PATH" in done.stdout


def test_a_test_fails_where_a_cluster_is_required(tmp_path):
    done = run_a_cluster_test(tmp_path, KUBESAE_REQUIRE_CLUSTER="1")
    assert done.returncode == 1
    assert "KUBESAE_REQUIRE_CLUSTER=1 asks for this test, but: " in done.stdout


def test_a_given_cluster_without_an_s3_server_is_refused_with_what_is_missing(tmp_path):
    without = {name: "" for name in os.environ if name.startswith("AWS_")}
    done = run_a_cluster_test(tmp_path, KUBECONFIG=str(tmp_path / "config"), **without)
    assert done.returncode == 1
    assert "but AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION is not set" in done.stdout
