# ruff: noqa: A005 - called as its program is; run as bench.trace, it hides nothing
"""From a row to its text: how long `kubesae trace` takes over a real S3 server, and how many reads it needs.

    make bench NAME=trace

The data: rows of width 7168 in bfloat16, blocks of 2,048 rows (29 MB each), as `kubesae fixture` writes them, with the
tokenizer of SmolLM2 (1.5 MB, 49,152 tokens) put in the place of theirs. Rows are traced in random order.

Rows: `trace`, `trace-p95`: milliseconds in a process that is running; `trace-reads`: of each trace, besides identity,
manifest and tokenizer; `trace-command`: milliseconds of the whole command, Python's start included.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from bench.support.measure import print_row, s3_server, say

from kubesae.corpus import Tokenizer, require_manifest
from kubesae.experiment import Experiment, sha256_hex
from kubesae.fixture import write_fixture
from kubesae.ledger import keys
from kubesae.model.smollm2 import demo_model
from kubesae.store import Store, open_store
from kubesae.trace import trace

if TYPE_CHECKING:
    from collections.abc import Callable

D_MODEL, ROWS, CONTEXT = 7168, 16_384, 2048
TRACES, COMMANDS = 50, 5
WANTED = 200.0
FIXED = {keys.IDENTITY, keys.TOKENS_MANIFEST, keys.TOKENIZER}


def write(url: str) -> Experiment:
    """Write the data at `url`."""
    say("writing activations ...")
    experiment = Experiment.model_validate(
        {
            "name": "bench",
            "data": url,
            "model": "planted",
            "corpora": [{"name": "planted", "source": "planted"}],
            "layers": [45],
            "tokens": ROWS,
            "num_shards": 1,
            "context": CONTEXT,
            "contexts_per_part": 4,
            "contexts_per_block": 1,
        }
    )
    store = open_store(url)
    write_fixture(experiment, store, D_MODEL, 64)
    tokenizer, manifest = Tokenizer.load(str(demo_model(say)), None), require_manifest(store)
    info = manifest.tokenizer.model_copy(update={"sha256": sha256_hex(tokenizer.definition)})
    store.put(keys.TOKENIZER, tokenizer.definition)
    store.put(keys.TOKENS_MANIFEST, manifest.model_copy(update={"tokenizer": info}).to_json())
    return experiment


def reads_of(store: Store, action: Callable[[], object]) -> int:
    """Return how many objects, or ranges of them, `action` reads besides those that are the same for every row."""
    kind, count = type(store), 0
    originals = kind.read, kind.read_into

    def counted(original: Any) -> Any:
        def read(self: Store, key: str, *arguments: Any) -> Any:
            nonlocal count
            count += key not in FIXED
            return original(self, key, *arguments)

        return read

    kind.read, kind.read_into = map(counted, originals)  # type: ignore[method-assign]
    try:
        action()
    finally:
        kind.read, kind.read_into = originals  # type: ignore[method-assign]
    return count


def milliseconds(action: Callable[[], object]) -> float:
    """Return how long `action` takes."""
    began = time.perf_counter()
    action()
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    """Write, trace, print the rows."""
    with s3_server() as (server, _):
        experiment = write(f"{server.new_bucket()}/data")
        store = open_store(experiment.data)
        rows = np.random.Generator(np.random.PCG64(0)).integers(0, ROWS, TRACES).tolist()
        reads = max(reads_of(store, lambda row=row: trace(store, experiment, row)) for row in rows[:5])  # type: ignore[misc]
        times = [milliseconds(lambda row=row: trace(store, experiment, row)) for row in rows]  # type: ignore[misc]
        command = [sys.executable, "-m", "kubesae", "trace", "--data", experiment.data, "--row"]
        whole = [
            milliseconds(lambda row=row: subprocess.run([*command, str(row)], check=True, stdout=subprocess.DEVNULL))  # type: ignore[misc]  # noqa: S603 - ourselves
            for row in rows[:COMMANDS]
        ]
    print_row("trace", "trace", statistics.median(times), "ms", "lower", "wanted", WANTED)
    print_row("trace", "trace-p95", statistics.quantiles(times, n=20)[-1], "ms", "lower", "wanted", WANTED)
    print_row("trace", "trace-reads", reads, "reads", "lower")
    print_row("trace", "trace-command", statistics.median(whole), "ms", "lower")


if __name__ == "__main__":
    main()
