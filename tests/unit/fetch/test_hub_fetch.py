"""From a hub: its client is the real one, the hub is on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kubesae.fetch.note import NOTE
from kubesae.fetch.run import LOCK
from small_hub import COMMIT, LARGE, SmallHub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FIRST, SECOND = (f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
INDEX = "model.safetensors.index.json"
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"t" * 100,
    FIRST: bytes(range(256)) * 4_000,
    SECOND: bytes(range(255, -1, -1)) * 4_000,
    INDEX: json.dumps({"weight_map": {"a": FIRST, "b": SECOND}}).encode(),
}


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    with SmallHub("maker/Model-1B", FILES | {"pytorch_model.bin": b"p" * LARGE}) as hub:
        yield hub


def start(hub: SmallHub, tmp_path: Path, *more: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "kubesae", "fetch", "--from", hub.repository, "--to", str(tmp_path / "m"), *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_from_the_hub_at_a_commit(hub: SmallHub, tmp_path: Path) -> None:
    out, errors = (process := start(hub, tmp_path)).communicate()
    assert process.returncode == 0, errors
    assert out.endswith(f"✓ Model fetched: 5 files, {sum(map(len, FILES.values())):,} bytes, at {tmp_path / 'm'}\n")
    assert {
        path.name: path.read_bytes() for path in (tmp_path / "m").iterdir() if path.name not in {NOTE, LOCK}
    } == FILES
    note = json.loads((tmp_path / "m" / NOTE).read_text())
    assert (note["source"], note["revision"], note["complete"]) == (hub.repository, COMMIT, True)
    assert not any("pytorch_model" in request for request in hub.seen)


def test_a_stopped_fetch_goes_on_with_the_file_it_was_at(hub: SmallHub, tmp_path: Path) -> None:
    hub.stall_at = SECOND
    process = start(hub, tmp_path)
    assert hub.stalled.wait(60)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors.count("\n")) == (75, 1), errors
    assert errors.startswith("kubesae: Stopped by SIGTERM")
    assert not (tmp_path / "m" / "config.json").exists()
    hub.stall_at = None
    hub.seen.clear()
    _, errors = (process := start(hub, tmp_path)).communicate()
    assert process.returncode == 0, errors
    brought = [request.rpartition("/")[2] for request in hub.seen if request.startswith("GET") and "resolve" in request]
    assert brought == [SECOND, "tokenizer.json", "config.json"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir() if path.name in FILES} == FILES
