"""Activations in 8 bits (int8-block32): what they cost an SAE, their bytes, and how fast they are written and read.

    make bench NAME=codec
    PYTHONPATH=tests/support:tests/cluster .venv/bin/python -m bench.codec runs/demo     # on activations that are there

The data: activations of the demo's model (SmolLM2-135M, layer 12) over its corpus, collected in bfloat16; the same
blocks are then stored again as int8-block32. Rows:

- `fvu-penalty-percent`: 100 x (FVU8 - FVU16) / FVU16, the median of three seeds. Two TopK SAEs (2,304 features, k = 32,
  256 steps of 2,048 rows, unflagged) learn from the same rows in the same order, from one storage dtype each; both are
  evaluated on the same bfloat16 rows, of contexts that neither has seen. At most 1.
- `fvu`: the medians of both.
- `storage-fvu-percent`: 100 x the FVU that storing alone adds, as the commit record has it.
- `bytes-ratio`: tars in int8-block32 over tars in bfloat16, everything in them included. At most 0.55.
- `encode-gb-per-second`, `decode-gb-per-second`, `gather-gb-per-second`: one thread; GB of the bfloat16 that is
  represented (two bytes a value), not of what is written, by seconds of the processor. Encoding is from bfloat16 with
  the error counted, decoding to float32, gathering rows at random to bfloat16, as training does. `against` is a copy
  of the same rows, from bfloat16 to bfloat16.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from bench.support.measure import GB, Timings, interleaved, print_row, say
from bench.train import Case, Ours

from kubesae.cli.demo import demo_experiment
from kubesae.collect import Events, Share, collect
from kubesae.experiment import Experiment
from kubesae.ledger import Plan, keys, read_record, record_list, require_identity
from kubesae.memory import keep_memory
from kubesae.model.smollm2 import demo_model
from kubesae.prepare import prepare
from kubesae.shards import PartTar, Stored, codec, finish_layer, layer_blocks, read_block
from kubesae.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable

    from kubesae.shards import BlockData
    from kubesae.store import Store

LAYER, TOKENS = 12, 65_536
CASE = Case("topk", 576, 2304, 32, 2048, 256)
HELD = 4
SEEDS = range(3)
ROUNDS = 7


def collected(folder: Path, tokens: int = TOKENS) -> tuple[Store, Experiment]:
    """Collect the first tokens of the demo, one layer of them; return where they are, and of what experiment."""
    say("collecting ...")
    values = demo_experiment(folder, demo_model(say)) | {"tokens": tokens, "num_shards": 1}
    experiment = Experiment.model_validate(values)
    store = open_store(experiment.data)
    prepare(experiment, store)
    collect(experiment, store, Share((0,)), Events(say, experiment.chunk))
    return store, experiment


def stored_again(store: Store) -> tuple[list[BlockData], list[Stored], dict[str, Any]]:
    """Store the first parts again in 8 bits; return both, and what the writer says of it: bytes, and error by rows."""
    identity = require_identity(store)
    plan, blocks, again = Plan.of(identity), [], []
    sums = {"bytes": 0, "bytes16": 0, "rows": 0, "fvu": 0.0}
    for key in record_list(store):
        part = plan.part(*(keys.parse_record(key) or (0, 0)))
        record = read_record(store, part.shard, part.index)
        read = [read_block(store, ref) for ref in layer_blocks(record, plan, LAYER)]
        tar = PartTar(
            plan.blocks(part),
            [block.documents() for block in read],
            [block.row for block in read],
            layer=LAYER,
            d_model=identity.d_model,
            codec=codec("int8-block32"),
        )
        for number, block in enumerate(read):
            tar.put(number, 0, torch.from_numpy(block.acts).view(torch.bfloat16))
        tokens, flags = (np.concatenate([getattr(block, name) for block in read]) for name in ("tokens", "flags"))
        finished = finish_layer(tar, tokens, flags & 3, part, LAYER).record
        sums["bytes"] += finished.bytes
        sums["bytes16"] += next(layer.bytes for layer in record.layers if layer.layer == LAYER)
        sums["rows"] += part.rows
        sums["fvu"] += part.rows * (finished.storage_fvu or 0.0)
        blocks += read
        again += tar.stored
        if sums["rows"] >= TOKENS:
            break
    return blocks, again, sums


def batches_of(blocks: list[BlockData], again: list[Stored]) -> dict[str, np.ndarray[Any, Any]]:
    """Return batches [n, batch, d] of both, in the same order; the last `HELD` are bfloat16 in both."""
    unflagged = [np.flatnonzero(block.flags == 0) for block in blocks]
    held, count = 0, 0
    while count < HELD * CASE.batch:  # whole blocks from the end, so that no context is in both
        held += 1
        count += len(unflagged[-held])
    x16 = [block.stored.float32(rows) for block, rows in zip(blocks, unflagged, strict=True)]
    x8 = [stored.float32(rows) for stored, rows in zip(again, unflagged, strict=True)]
    order = np.random.Generator(np.random.PCG64(0)).permutation(sum(map(len, x16[:-held])))
    whole = len(order) // CASE.batch * CASE.batch
    last = np.concatenate(x16[-held:])[: HELD * CASE.batch]
    return {
        name: np.concatenate([np.concatenate(x[:-held])[order[:whole]], last]).reshape(-1, CASE.batch, CASE.d)
        for name, x in (("bfloat16", x16), ("int8-block32", x8))
    }


def penalty(batches: dict[str, np.ndarray[Any, Any]]) -> tuple[float, float, float]:
    """Train with all seeds on both; return the median penalty, and the median FVU of both."""
    found: dict[str, list[float]] = {name: [] for name in batches}
    for seed in SEEDS:
        for name, rows in batches.items():
            trained = Ours(CASE, rows, HELD, seed)
            trained.step(CASE.steps)
            found[name].append(trained.fvu())
        say(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.5f}" for name, values in found.items()))
    pairs = zip(found["int8-block32"], found["bfloat16"], strict=True)
    penalties = [100 * (fvu8 - fvu16) / fvu16 for fvu8, fvu16 in pairs]
    say("penalties in percent: " + ", ".join(f"{value:+.3f}" for value in penalties))
    medians = (statistics.median(found[name]) for name in ("int8-block32", "bfloat16"))
    return statistics.median(penalties), *medians


def speeds(block: BlockData, again: Stored) -> dict[str, Timings]:
    """Time each way with one thread, interleaved."""
    size = block.acts.size * 2 / GB
    x16 = torch.from_numpy(block.acts).view(torch.bfloat16)
    copy, narrow = torch.empty_like(x16), Stored(again.codec, again.acts.copy(), again.exponents.copy())  # type: ignore[union-attr]
    wide, memory = np.empty(block.acts.shape, np.float32), again.codec.memory(*block.acts.shape)
    rows = np.random.Generator(np.random.PCG64(0)).permutation(len(block.acts))

    def timed(work: Callable[[], Any]) -> Callable[[], float]:
        def run() -> float:
            began = time.thread_time()
            for _ in range(20):
                work()
            return 20 * size / (time.thread_time() - began)

        return run

    ways: dict[str, Callable[[], Any]] = {
        "copy": lambda: copy.copy_(x16),
        "encode": lambda: narrow.write(slice(None), x16),
        "decode": lambda: again.float32(out=wide),
        "gather": lambda: again.gather(rows, memory),
    }
    return interleaved({name: timed(work) for name, work in ways.items()}, ROUNDS)


def main() -> None:
    """Measure, and print the rows."""
    parser = argparse.ArgumentParser(description="Measure storing activations in 8 bits.")
    parser.add_argument("data", nargs="?", help="a prefix with the demo's activations  [default: collect some]")
    given = parser.parse_args().data
    keep_memory()  # as `kubesae train` does
    with tempfile.TemporaryDirectory(prefix="kubesae-bench-") as folder, torch.no_grad():
        blocks, again, sums = stored_again(open_store(given) if given else collected(Path(folder))[0])
        torch.set_num_threads(1)  # collecting has set its own
        print_row("codec", "bytes-ratio", sums["bytes"] / sums["bytes16"], "1", "lower")
        print_row("codec", "storage-fvu-percent", 100 * sums["fvu"] / sums["rows"], "%", "lower")
        found = speeds(blocks[0], again[0])
        for name in ("encode", "decode", "gather"):
            ours, other = found[name], found["copy"]
            case = f"{name}-gb-per-second"
            print_row("codec", case, ours.median, "GB/s", against="copy", other=other.median, ratio=ours.ratio(other))
        value, fvu8, fvu16 = penalty(batches_of(blocks, again))
        print_row("codec", "fvu-penalty-percent", value, "%", "lower")
        print_row("codec", "fvu", fvu8, "1", "lower", against="bfloat16", other=fvu16)


if __name__ == "__main__":
    main()
