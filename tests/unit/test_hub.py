"""A hub that does not answer is told soon, as a fault; what it does not have is the user's mistake."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import huggingface_hub.constants
import huggingface_hub.errors
import pytest

from kubesae import hub
from kubesae.errors import EXIT_FAULT, ConfigError, HubError, Interrupted
from silent_hub import SilentHub

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "http://127.0.0.1:9"


def load_config(endpoint: str, tmp_path: Path, **environment: str) -> tuple[str, float]:
    """Resolve a hub model in a process of its own; return what it raised, and how long that took from the call on."""
    code = """
import time, transformers
from kubesae.experiment import Experiment
from kubesae.model import resolve_model
experiment = Experiment(data="d", model="some/model", layers=[0], corpora=[{"name": "c", "source": "s"}])
began = time.monotonic()
try:
    resolve_model(experiment)
except Exception as error:
    print(type(error).__name__, error.exit_code, error, sep="|", end=f"|{time.monotonic() - began}")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": "jobs", "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        text=True,
    )
    message, _, seconds = done.stdout.rpartition("|")
    return message, float(seconds)


def test_where_nobody_listens_is_told_soon(tmp_path):
    message, seconds = load_config(NOBODY, tmp_path)
    assert message.startswith(
        "HubError|1|The hub does not answer: the config of model 'some/model' (there is no such local folder) cannot "
        f"be fetched from {NOBODY} (ConnectError: "
    )
    assert seconds < 5  # the client's own retries take 25


@pytest.mark.slow
def test_a_download_that_stalls_is_the_hubs_silence(tmp_path):
    with SilentHub("stall") as peer:
        message, _ = load_config(peer.url, tmp_path, HF_HUB_DOWNLOAD_TIMEOUT="1")
        assert f"GET /some/model/resolve/{'0' * 40}/config.json" in peer.seen
    assert message.startswith("HubError|1|The hub does not answer: the config of model 'some/model'")
    assert "(ReadTimeout: timed out). Check the network" in message


@pytest.mark.slow
def test_a_hub_in_trouble_is_the_hubs_silence(tmp_path):
    with SilentHub("503") as peer:
        message, _ = load_config(peer.url, tmp_path)
    assert message.startswith("HubError|1|")
    assert "HTTP 503" in message


def test_a_hub_that_swallows_everything_is_told_soon(monkeypatch, blackhole):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", blackhole)
    monkeypatch.setattr(hub, "ATTEMPT_SECONDS", 0.2)
    began = time.monotonic()
    with pytest.raises(HubError, match="ReadTimeout") as caught, hub.loading("it", "Mend it.", repository="a/b"):
        raise AssertionError("the body is not reached")
    assert time.monotonic() - began < 2
    assert caught.value.exit_code == EXIT_FAULT


@pytest.fixture
def blackhole():
    """Give the URL of a port that accepts connections and never answers."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_full_disk_is_named():
    full = OSError(errno.ENOSPC, "No space left on device")
    expected = r"The disk is full: it does not fit into the cache .*HF_HOME"
    with pytest.raises(HubError, match=expected), hub.loading("it", "Mend it."):
        raise ValueError("wrapped") from full


def test_a_path_is_not_asked_for_at_the_hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", NOBODY)
    for path in ("./model", "/no/model", "some/deep/folder", "text.jsonl"):
        with (
            pytest.raises(ConfigError, match=f"Cannot load it: nothing is at '{path}'. Mend it."),
            hub.loading("it", "Mend it.", repository=path),
        ):
            raise AssertionError("the body is not reached")


def test_mistakes_bugs_and_signals_are_told_apart(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", NOBODY)
    for error, expected in [
        (OSError("not there."), ConfigError),
        (huggingface_hub.errors.OfflineModeIsEnabled("offline"), ConfigError),
        (AttributeError("a bug"), AttributeError),
        (Interrupted("stopped"), Interrupted),
    ]:
        with pytest.raises(expected) as caught, hub.loading("it", "Mend it.", repository="a/b"):
            raise error
        if isinstance(error, OSError) and "there" in str(error):
            assert str(caught.value) == "Cannot load it: not there. Mend it."
