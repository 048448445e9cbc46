"""How long training waits for data: a consumer paced as a GPU would be, fed by the trainer's own reader.

    make bench NAME=train-io

Data and server are those of `make bench NAME=read`: blocks of width 7168 on a real S3 server on this machine, which
shares its cores with the reader. An epoch names each block of the 940 MB four times, so that it is long enough to be
steady. The consumer takes batches from it with the default sizes (8,192 rows of windows of 65,536), and computes for
each as long as 0.6 of curl's rate takes to bring it: it sleeps, as a process does whose GPU computes. From asking for a
batch to having it, it waits. Epochs alternate with curl, whose rate sets the pace of the epoch after it.

Rows, medians of the epochs: `wait-share`, the share of the time from the second batch on that was waiting, against its
limit; `first-batch-seconds`, until the first window is read; `paced-rate`, MB/s of the consumer, against the pace.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch
from bench.read import Data
from bench.support.measure import MB, print_row, s3_server, say

from kubesae.experiment import Sae as Settings
from kubesae.train.distributed import Ranks
from kubesae.train.reader import Reader

PACE = 0.6
"""of curl's rate"""
LIMIT = 0.05
EPOCHS = 7
TIMES = 4
"""how often an epoch names each block"""


@dataclass(frozen=True)
class Paced:
    """What an epoch gave: the seconds until its first batch; of the rest, the share that was waiting, and the MB/s."""

    first: float
    share: float
    rate: float
    pace: float


def consume(reader: Reader, epoch: int, pace: float) -> Paced:
    """Take an epoch's batches at `pace` MB/s."""
    began = time.perf_counter()
    batches = reader.batches(epoch, 0)
    batch, first = next(batches, None), time.perf_counter() - began
    began, waited, size = time.perf_counter(), 0.0, 0
    while batch is not None:
        size += batch.x_BD.nbytes
        time.sleep(batch.x_BD.nbytes / MB / pace)
        asked = time.perf_counter()
        batch = next(batches, None)
        waited += time.perf_counter() - asked
    seconds = time.perf_counter() - began
    return Paced(first, waited / seconds, size / MB / seconds, pace)


def main() -> None:
    """Measure the epochs and print the rows."""
    settings = Settings()
    with s3_server() as (server, _):
        data = Data(server.new_bucket())
        with data.source:
            reader = Reader(
                data.source,
                data.refs * TIMES,
                shuffle_rows=settings.shuffle_rows,
                batch_size=settings.batch_size,
                seed=0,
                ranks=Ranks(0, 1, torch.device("cpu")),
            )
            epochs = []
            for number in range(EPOCHS + 1):
                curl = data.curl()
                epochs.append(consume(reader, number, PACE * curl))
                say(f"epoch {number} of {EPOCHS}: curl {curl:,.0f} MB/s, {epochs[-1]}")
    del epochs[0]  # it made room

    def median(name: str) -> float:
        return statistics.median(getattr(epoch, name) for epoch in epochs)

    print_row("train-io", "wait-share", median("share"), "1", "lower", "limit", LIMIT)
    print_row("train-io", "first-batch-seconds", median("first"), "s", "lower")
    print_row("train-io", "paced-rate", median("rate"), "MB/s", against="pace", other=median("pace"))


if __name__ == "__main__":
    main()
