"""A model eight times as large as the memory of its process is collected to the resident engine's bytes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kubesae.ledger import record_list
from kubesae.store import open_store
from large_model import Sizes, forget_pages, write_large_model
from limits import Unavailable, little_memory
from tiny_models import text

pytestmark = [pytest.mark.fault, pytest.mark.slow]

SIZES = Sizes(2048, 8192, 72)  # 9.7 GB
CONTEXT, PARTS = 256, 2


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    write_large_model(tmp_path / "model", SIZES)
    (tmp_path / "corpus").mkdir()
    for number in range(200):
        (tmp_path / "corpus" / f"{number}.txt").write_text(text(number))
    return tmp_path


def experiment(inputs: Path, data: str, **collect: object) -> Path:
    """Write an experiment of two parts on the last layer."""
    file = inputs / f"{data}.yaml"
    values = {
        "name": "large",
        "data": str(inputs / data),
        "model": str(inputs / "model"),
        "corpora": [{"name": "words", "source": str(inputs / "corpus"), "format": "text"}],
        "layers": [SIZES.layers - 1],
        "tokens": CONTEXT * PARTS,
        "context": CONTEXT,
        "contexts_per_part": 1,
        "contexts_per_block": 1,
        "num_shards": 1,
        "chunk": CONTEXT,
        "pilot": {"tokens": CONTEXT, "chunk": CONTEXT},
        "collect": {"forward_batch": 1, **collect},
    }
    file.write_text(yaml.safe_dump(values))
    return file


def kubesae(*arguments: object, group: Path | None = None) -> int:
    """Run a command, in a control group where one is given; return how many bytes it had read from the disk."""

    def enter() -> None:
        if group is not None:
            group.write_text(str(os.getpid()))

    command = [sys.executable, "-m", "kubesae", *map(str, arguments)]
    process = subprocess.Popen(command, preexec_fn=enter)  # noqa: PLW1509 - no threads yet
    read = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/io").read_text()
            read = max(read, int(re.search(r"^read_bytes: (\d+)", lines, re.MULTILINE)[1]))
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            continue
        except OSError:
            break
    assert process.wait() == 0
    return read


@pytest.mark.timeout(1200)
def test_a_model_of_eight_times_the_memory(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = experiment(inputs, "whole")
    kubesae("prepare", whole)
    kubesae("collect", whole, "--index", 0, "--of", 1)
    streamed = experiment(inputs, "streamed", engine="streamed", block_tokens=CONTEXT * PARTS)
    kubesae("prepare", streamed)
    forget_pages(inputs / "model")
    try:
        with little_memory(SIZES.weights // 8) as group:
            read = kubesae("collect", streamed, "--index", 0, "--of", 1, group=group)
    except Unavailable as reason:
        pytest.skip(str(reason))
    one, other = (open_store(str(inputs / name)) for name in ("whole", "streamed"))
    assert len(record_list(other)) == PARTS
    tars = {key: one.read(key) for key in one.list("activations/layer-")}
    assert tars
    assert {key: other.read(key) for key in other.list("activations/layer-")} == tars
    assert read > SIZES.weights, "all weights came from the disk"
    with capsys.disabled():
        sys.stdout.write(
            f"\n{SIZES.weights:,} bytes of weights, {SIZES.weights // 8:,} of memory, {read:,} read from the disk\n"
        )
