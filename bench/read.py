"""Reading activations: ours against curl, webdataset, mosaicml-streaming and litdata, from a real S3 server.

    make bench NAME=read

The data: 65,536 rows of width 7168 in bfloat16 (940 MB) in 8 tars of 4 blocks, a context of 2,048 tokens each (29 MB),
which is the default layout; written as `kubesae fixture` writes them. The server runs on this machine, with all of it
in the page cache, and shares its cores with the readers.

- `blocks-random`: every block in one global random order, by ranged reads into preallocated buffers, and parsed.
- `rows-shuffled`: training's own reader: batches of 4,096 shuffled bfloat16 rows, windows of 16,384 rows.
- `curl`: the whole tars one after the other, one connection, thrown away: nothing is parsed.
- `webdataset`: the tars by `pipe:curl` on presigned URLs, in order, arrays decoded.
- `mosaicml-streaming`, `litdata`: the same blocks in their formats, in order, into an empty cache.

Rows: MB/s of activations in hand, or of bytes for curl.
"""

from __future__ import annotations

import os
import queue
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from bench.support.environment import Rival, python_of
from bench.support.measure import MB, Timings, cpu_seconds, interleaved, plain_client, print_row, s3_server, say

from kubesae.experiment import Experiment
from kubesae.fixture import write_fixture
from kubesae.shards import read_block, read_index
from kubesae.shards.order import permutation
from kubesae.store import Store, open_store
from kubesae.train.distributed import Ranks
from kubesae.train.reader import BlockSource, Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kubesae.shards import BlockRef
    from s3_server import S3Server

LAYER, D_MODEL = 45, 7168
ROWS, CONTEXT, BLOCKS_PER_TAR = 65_536, 2048, 4
SHUFFLE_ROWS, BATCH = 16_384, 4096
READERS = 4
ROUNDS, RIVAL_ROUNDS = 7, 3
ACTS_BYTES = ROWS * D_MODEL * 2
RIVALS = {"webdataset": "read_webdataset", "mosaicml-streaming": "read_mosaicml", "litdata": "read_litdata"}


class Data:
    """The activations on the server, and each way to read them; every way returns its MB/s."""

    def __init__(self, bucket: str) -> None:
        """Write them."""
        say(f"writing {ACTS_BYTES / MB:,.0f} MB of activations ...")
        self.store: Store = open_store(f"{bucket}/data")
        experiment = Experiment.model_validate(
            {
                "name": "bench",
                "data": self.store.url,
                "model": "planted",
                "corpora": [{"name": "planted", "source": "planted"}],
                "layers": [LAYER],
                "tokens": ROWS,
                "num_shards": 1,
                "context": CONTEXT,
                "contexts_per_part": BLOCKS_PER_TAR,
                "contexts_per_block": 1,
                "chunk": ROWS,
                "pilot": {"tokens": ROWS, "chunk": ROWS},
            }
        )
        self.refs: list[BlockRef] = read_index(self.store, write_fixture(experiment, self.store, D_MODEL, 64), LAYER)
        self.tars = list(dict.fromkeys(ref.tar for ref in self.refs))
        client, where = plain_client(), {"Bucket": bucket.removeprefix("s3://")}
        self.urls = [
            client.generate_presigned_url("get_object", {**where, "Key": f"data/{tar}"}, ExpiresIn=7200)
            for tar in self.tars
        ]
        size = max(ref.bytes for ref in self.refs)
        self._buffers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(2 * READERS):
            self._buffers.put(memoryview(np.ones(size, np.uint8)))
        self._epoch = 0
        self.source = BlockSource(self.store, "bfloat16", D_MODEL, READERS)
        self._reader = Reader(
            self.source,
            self.refs,
            shuffle_rows=SHUFFLE_ROWS,
            batch_size=BATCH,
            seed=0,
            ranks=Ranks(0, 1, torch.device("cpu")),
        )

    def blocks_random(self) -> float:
        """Read every block, in another order each time."""
        self._epoch += 1
        order = [self.refs[i] for i in permutation(len(self.refs), 0, self._epoch)]
        start = time.perf_counter()
        with ThreadPoolExecutor(READERS) as pool:
            size = sum(pool.map(self._read, order))
        assert size == ACTS_BYTES
        return size / MB / (time.perf_counter() - start)

    def _read(self, ref: BlockRef) -> int:
        buffer = self._buffers.get()
        try:
            return int(read_block(self.store, ref, buffer).acts.nbytes)
        finally:
            self._buffers.put(buffer)

    def rows_shuffled(self) -> float:
        """Read an epoch as training does."""
        self._epoch += 1
        start, size = time.perf_counter(), 0
        for batch in self._reader.batches(self._epoch, 0):
            assert batch.x_BD.dtype is torch.bfloat16
            size += batch.x_BD.nbytes
        assert size > 0.98 * ACTS_BYTES  # less the flagged rows, 1.1%
        return size / MB / (time.perf_counter() - start)

    def curl(self) -> float:
        """Read the tars."""
        start = time.perf_counter()
        outputs = [word for url in self.urls for word in ("-o", "/dev/null", url)]
        subprocess.run(["curl", "--silent", "--show-error", "--fail", *outputs], check=True)  # noqa: S603, S607
        return sum(ref.bytes for ref in self.refs) / MB / (time.perf_counter() - start)


def start_rivals(stack: ExitStack, data: Data, server: S3Server, bucket: str, folder: Path) -> dict[str, Any]:
    """Start each rival, give it the data in its own format, and return how each reads once."""
    blocks = folder / "blocks"
    blocks.mkdir()
    for i, ref in enumerate(data.refs):
        np.save(blocks / f"{i:04d}.npy", read_block(data.store, ref).acts)
    environment = {**os.environ, "S3_ENDPOINT_URL": server.endpoint, "TMPDIR": str(folder)}
    cases: dict[str, Callable[[], float]] = {}
    for name, program in RIVALS.items():
        rival = stack.enter_context(Rival(program, python_of(program), environment))
        request: dict[str, Any] = {"urls": data.urls}
        if name != "webdataset":
            say(f"writing the blocks as {name} has them ...")
            out = folder / name
            written = rival.ask(do="write", folder=str(blocks), out=str(out), shard_bytes=ACTS_BYTES // len(data.tars))
            for file in written["files"]:
                open_store(f"{bucket}/{name}").put_file(file, out / file)
            request = {"do": "read", "url": f"{bucket}/{name}", "cache": str(folder / "cache")}
        cases[name] = partial(_ask, rival, request)
    return cases


def _ask(rival: Rival, request: dict[str, Any]) -> float:
    answer = rival.ask(**request)
    assert answer["bytes"] == ACTS_BYTES, answer
    return float(answer["bytes"] / MB / answer["seconds"])


def print_against(case: str, ours: Timings, rival: str, theirs: Timings) -> None:
    """Print the row of a comparison."""
    print_row("read", case, ours.median, "MB/s", against=rival, other=theirs.median, ratio=ours.ratio(theirs))


def main() -> None:
    """Measure all pairs and print their rows."""
    with s3_server() as (server, folder), ExitStack() as stack:
        bucket = server.new_bucket()
        data = Data(bucket)
        stack.enter_context(data.source)
        curl: dict[str, Callable[[], float]] = {"curl": data.curl}
        found = interleaved({"blocks-random": data.blocks_random, **curl, "rows-shuffled": data.rows_shuffled}, ROUNDS)
        for case in ("blocks-random", "rows-shuffled"):
            print_against(case, found[case], "curl", found["curl"])
        before = cpu_seconds()
        data.blocks_random()
        print_row(
            "read", "blocks-random-cpu-seconds-per-gb", 1e9 * (cpu_seconds() - before) / ACTS_BYTES, "s/GB", "lower"
        )
        rivals = start_rivals(stack, data, server, bucket, folder)
        found = interleaved({"blocks-random": data.blocks_random, **rivals}, RIVAL_ROUNDS)
        for name in rivals:
            print_against("blocks-random", found["blocks-random"], name, found[name])


if __name__ == "__main__":
    main()
