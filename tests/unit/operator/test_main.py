"""The program: its arguments, what it says when it cannot start, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import yaml

from kubesae_operator.main import main
from s3_server import free_port

ROOT = Path(__file__).parents[3]


def write_kubeconfig(path, url):
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(config))
    return path


def start(kubeconfig, *arguments):
    """Start the program as a Pod does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
    return subprocess.Popen(
        [sys.executable, "-m", "kubesae_operator", *arguments],
        env={**environment, "PYTHONPATH": f"{ROOT}/jobs:{ROOT}/operator", "KUBECONFIG": str(kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metrics-port", "many"], "invalid _port value: 'many'"),
        (["--metrics-port", "65536"], "65536 is no port"),
        (["--log-format", "xml"], "invalid choice: 'xml'"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_an_argument_that_is_none_is_refused_with_its_name(arguments, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert arguments[0] in error


def test_help_names_every_argument(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("--namespace", "--lease-namespace", "--metrics-port", "--log-format"))


def test_where_it_cannot_start_it_says_what_to_do(tmp_path):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = write_kubeconfig(tmp_path / "config", "http://127.0.0.1:1")
        deaf = start(config, "--metrics-port", str(port))
        lost = start(tmp_path / "nothing", "--log-format", "json")
        said = {program: program.communicate(timeout=60)[1] for program in (deaf, lost)}
    assert (deaf.returncode, lost.returncode) == (2, 2)
    assert f"Port {port} cannot be listened at" in said[deaf]
    assert "Traceback" not in said[deaf]
    (line,) = [json.loads(line) for line in said[lost].splitlines()]
    assert (line["level"], line["message"].startswith("No cluster: ")) == ("error", True)
    assert "KUBECONFIG" in line["message"]


def test_it_runs_ready_and_leading_until_it_is_told_to_end_and_lets_go(tmp_path, server, until):
    port = free_port()
    program = start(
        write_kubeconfig(tmp_path / "config", server.url), "--lease-namespace", "system", "--metrics-port", str(port)
    )

    def holder():
        lease = server.objects.get((("/apis/coordination.k8s.io/v1", "leases"), "system", "kubesae-operator"))
        return lease and lease["spec"]["holderIdentity"]

    until(holder)
    assert holder() == f"{socket.gethostname()}-{program.pid}"
    until(lambda: server.watchers == 4)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=10) as answer:
        assert answer.read() == b"ok\n"
    program.send_signal(signal.SIGTERM)
    _, error = program.communicate(timeout=10)
    assert program.returncode == 0
    assert holder() == ""
    assert "watching all namespaces" in error
    assert "Traceback" not in error
