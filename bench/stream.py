"""The streamed engine in a quarter of a model's weights against the resident one in all the memory there is.

    make bench NAME=stream

A random Llama of 4.9 GB, layer 47, contexts of 512 tokens, two in a forward pass. The streamed engine runs in a control
group that holds a quarter of the weights, with the page cache dropped before; blocks of several sizes show where
loading hides behind computing, and `planner-choice` is the size that `kubesae plan` picks for this machine after
`--calibrate`. The resident engine runs without a limit, before the others and after them. Each run is a process of its
own, whose first block warms up.

Rows: `resident`, `planner-choice` and `block-<tokens>` in tokens/s, those of the streamed engine against the resident
one; `read-gb-<tokens>`: what a block reads from the disk, against the weights.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from bench.support.measure import GB, print_row, say

from large_model import Sizes, forget_pages, write_large_model
from limits import little_memory

SIZES = Sizes(2048, 5632, 48)
CONTEXT, BATCH = 512, 2
BLOCKS, REPEATS = (512, 1024, 2048), 2
RESIDENT_BLOCK = 1024
CONTEXTS_PER_PART = 2


def run(folder: Path, engine: str, block: int, group: Path | None) -> dict[str, Any]:
    """Run an engine in a process of its own, in a control group where one is given; return what it printed."""
    command = [sys.executable, "-m", "bench.support.engine_run", str(folder), engine]
    command += [str(number) for number in (SIZES.layers - 1, CONTEXT, BATCH, block, REPEATS)]

    def enter() -> None:
        if group is not None:
            group.write_text(str(os.getpid()))

    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, preexec_fn=enter)  # noqa: S603 - ourselves, and no threads yet
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def streamed(folder: Path, block: int) -> dict[str, Any]:
    """Run the streamed engine in a quarter of the weights, with nothing of them in memory."""
    forget_pages(folder)
    with little_memory(SIZES.weights // 4) as group:
        return run(folder, "streamed", block, group)


def speed(result: dict[str, Any], block: int) -> float:
    """Tokens a second of the median block, the first left out."""
    return block / statistics.median(result["seconds"][1:])


def planned_block(folder: Path) -> int:
    """Return the tokens of a block that the planner picks for this machine."""
    file = folder.parent / "experiment.yaml"
    values = {
        "name": "stream",
        "data": str(folder.parent / "data"),
        "model": str(folder),
        "corpora": [{"name": "a", "source": str(folder)}],
        "layers": [SIZES.layers - 1],
        "tokens": 1_000_000,
        "context": CONTEXT,
        "contexts_per_part": CONTEXTS_PER_PART,
        "contexts_per_block": CONTEXTS_PER_PART,
        "collect": {"forward_batch": BATCH, "weights": "direct"},
    }
    file.write_text(yaml.safe_dump(values))
    options = ["--gpu", "here", "--engine", "streamed", "--calibrate", "--calibration", str(folder.parent / "c.json")]
    command = [sys.executable, "-m", "kubesae", "plan", str(file), *options, "--json"]
    report = json.loads(subprocess.run(command, check=False, stdout=subprocess.PIPE).stdout)  # noqa: S603 - ourselves
    return int(report["streaming"]["block_tokens"])


def main() -> None:
    """Write the model, run both engines, print the rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        say(f"writing a model of {SIZES.weights / GB:.1f} GB ...")
        write_large_model(folder, SIZES)
        chosen = planned_block(folder)
        say(f"the planner picks blocks of {chosen:,} tokens")
        before = run(folder, "resident", RESIDENT_BLOCK, None)
        results = {block: streamed(folder, block) for block in sorted({*BLOCKS, chosen})}
        after = run(folder, "resident", RESIDENT_BLOCK, None)  # both sides of the others: the machine changes
    if results[RESIDENT_BLOCK]["sum"] != before["sum"]:
        raise SystemExit("the engines do not agree")
    rate = statistics.fmean([speed(before, RESIDENT_BLOCK), speed(after, RESIDENT_BLOCK)])
    print_row("stream", "resident", rate, "tokens/s")
    for block, result in results.items():
        for case in (f"block-{block}", *(["planner-choice"] if block == chosen else [])):
            print_row("stream", case, speed(result, block), "tokens/s", "higher", "resident", rate)
        read = result["read_bytes"] / (REPEATS + 1) / GB
        print_row("stream", f"read-gb-{block}", read, "GB", "lower", "weights", SIZES.weights / GB)


if __name__ == "__main__":
    main()
