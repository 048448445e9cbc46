"""Ours, beside its rivals: `kubesae collect`, which collects the next shard whenever it is asked to."""

import json
import sys
import time

from capture import peak_rss
from serve import answer

from kubesae.collect import Events, Share, collect
from kubesae.experiment import Experiment
from kubesae.store import open_store


class Asked(Events):
    """Waits for a request before each shard, and answers it with what that took."""

    def loaded(self, shard: int) -> None:
        """Answer the request to begin: the model is there."""
        super().loaded(shard)
        answer({})

    def start(self, shard: int, rows: int, total: int) -> None:
        """Wait for a request, and start the clocks."""
        super().start(shard, rows, total)
        if not sys.stdin.readline():
            raise SystemExit
        self._start = time.perf_counter(), time.process_time()

    def complete(self, shard: int) -> None:
        """Stop the clocks: the last part is committed."""
        seconds, cpu = time.perf_counter() - self._start[0], time.process_time() - self._start[1]
        super().complete(shard)
        answer({"seconds": seconds, "cpu": cpu, "peak": peak_rss()})


def main() -> None:
    """Collect what the first request says."""
    experiment = Experiment.model_validate(json.loads(sys.stdin.readline())["experiment"])
    shards = tuple(range(experiment.num_shards))
    collect(experiment, open_store(experiment.data), Share(shards), Asked(lambda _: None, experiment.chunk))


main()
