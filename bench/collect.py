"""Collection against the bare forward pass: what capture, tar, digest, upload and commit cost a real model.

    make bench NAME=collect

`kubesae collect` runs SmolLM2-135M (layer 20, bfloat16, CPU) over real text and commits every part to a real S3 server
on the same two cores: a small model is the hard case, because it gives ten times the bytes per operation of a large
one. Each round is a shard; beside it the same contexts go through `rivals/bare_forward.py`, before or after in turns.

Rows: `resident` (tokens/s) against `bare-forward`; `resident-cpu-seconds` against the same of the bare forward, by
10,000 tokens, without the server's, which is `server-cpu-seconds`.
"""

from __future__ import annotations

import sysconfig
import time
from dataclasses import dataclass, field

import psutil
import torch
from bench.rivals import bare_forward
from bench.support.measure import Timings, cpu_seconds, print_row, s3_server, say
from transformers.utils import logging

from kubesae.collect import Events, Share, collect
from kubesae.corpus import TokensManifest, read_shard_tokens
from kubesae.experiment import Experiment
from kubesae.model import resolve_model
from kubesae.model.smollm2 import demo_model
from kubesae.prepare import prepare
from kubesae.store import Store, open_store

LAYER, CONTEXT, BATCH = 20, 512, 8
CONTEXTS_PER_PART, PARTS, ROUNDS = 8, 4, 7
TOKENS = CONTEXTS_PER_PART * PARTS * CONTEXT
UNIT = 10_000


@dataclass
class Side:
    """What one of the two spent, a value a round: seconds, its processor seconds, the server's."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)

    def begin(self, server: psutil.Process) -> None:
        """Start the clocks."""
        self._start = time.perf_counter(), cpu_seconds(), cpu_seconds(server)

    def end(self, server: psutil.Process) -> None:
        """Stop them."""
        now = time.perf_counter(), cpu_seconds(), cpu_seconds(server)
        for values, start, stop in zip((self.seconds, self.cpu, self.server), self._start, now, strict=True):
            values.append(stop - start)

    def speed(self) -> Timings:
        """Tokens a second of each round but the first."""
        return Timings([TOKENS / seconds for seconds in self.seconds[1:]])


class Rounds(Events):
    """Takes the times of each shard, and runs the bare forward beside it."""

    def __init__(self, store: Store, manifest: TokensManifest, model: torch.nn.Module, server: psutil.Process) -> None:
        """`server` is the process whose share is told apart."""
        super().__init__(lambda _: None, TOKENS)
        self._store, self._manifest, self._model, self._server = store, manifest, model, server
        self.ours, self.bare = Side(), Side()

    def start(self, shard: int, rows: int, total: int) -> None:
        """Let the bare forward go first in every second round, then start the clocks."""
        super().start(shard, rows, total)
        if shard % 2:
            self._forward(shard)
        self.ours.begin(self._server)

    def complete(self, shard: int) -> None:
        """Stop the clocks; the last part is committed."""
        self.ours.end(self._server)
        if not shard % 2:
            self._forward(shard)
        speeds = [TOKENS / side.seconds[-1] for side in (self.ours, self.bare)]
        say("round {} of {}: resident {:,.0f}, bare-forward {:,.0f} tokens/s".format(shard, ROUNDS, *speeds))

    def _forward(self, shard: int) -> None:
        ids = read_shard_tokens(self._store, self._manifest, shard).ids
        ids_NT = torch.from_numpy(ids.astype("int64")).reshape(-1, CONTEXT)
        self.bare.begin(self._server)
        bare_forward.forward(self._model, ids_NT, BATCH)
        self.bare.end(self._server)


def experiment_at(url: str, model: str) -> Experiment:
    """Return the experiment: one shard a round, and one to warm up."""
    return Experiment.model_validate(
        {
            "name": "bench",
            "data": url,
            "model": model,
            "corpora": [{"name": "stdlib", "source": sysconfig.get_path("stdlib"), "format": "source", "pool": 2}],
            "layers": [LAYER],
            "tokens": TOKENS * (ROUNDS + 1),
            "num_shards": ROUNDS + 1,
            "context": CONTEXT,
            "contexts_per_part": CONTEXTS_PER_PART,
            "contexts_per_block": 4,
            "chunk": TOKENS,
            "pilot": {"tokens": TOKENS, "chunk": TOKENS},
            "collect": {"forward_batch": BATCH},
        }
    )


def main() -> None:
    """Collect all shards and print the rows."""
    path = str(demo_model(say))
    logging.set_verbosity_error()  # each tensor of a later layer would be reported as unexpected
    logging.disable_progress_bar()
    with s3_server() as (server, _):
        store = open_store(f"{server.new_bucket()}/data")
        experiment = experiment_at(store.url, path)
        say("preparing the tokens ...")
        manifest = prepare(experiment, store, vocab_size=lambda: resolve_model(experiment).vocab_size).manifest
        rounds = Rounds(store, manifest, bare_forward.load(path, LAYER + 1), psutil.Process(server.process.pid))
        collect(experiment, store, Share(tuple(range(ROUNDS + 1))), rounds)
    ours, bare = rounds.ours, rounds.bare
    speed, floor = ours.speed(), bare.speed()
    print_row(
        "collect", "resident", speed.median, "tokens/s", "higher", "bare-forward", floor.median, speed.ratio(floor)
    )
    spent, least = (Timings([UNIT * cpu / TOKENS for cpu in side.cpu[1:]]) for side in (ours, bare))
    print_row(
        "collect", "resident-cpu-seconds", spent.median, "s/10k tokens", "lower", "bare-forward", least.median,
        least.ratio(spent),
    )  # fmt: skip
    server_share = Timings([UNIT * cpu / TOKENS for cpu in ours.server[1:]])
    print_row("collect", "server-cpu-seconds", server_share.median, "s/10k tokens", "lower")


if __name__ == "__main__":
    main()
