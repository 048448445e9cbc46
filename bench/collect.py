"""Collection against the bare forward pass, SAELens, TransformerLens and nnsight; two layers against one.

    make bench NAME=collect

`kubesae collect` runs SmolLM2-135M (layer 20, CPU) over real text and commits every part to a real S3 server on the
same two cores: a small model is the hard case, because it gives ten times the bytes per operation of a large one. The
rivals run the same model over the same batches of the same tokens, and write the same layer to local files;
`rivals/collect_bare_forward.py` keeps nothing. Each has a process and an environment of its own, two threads, and that
of bfloat16 and float32 in which it takes less processor time here; ours that of the bare forward, and stores bfloat16.
All take turns, a shard each, and every second round in reverse order. What rivals captured is compared with ours.

Rows, against each: `resident` (tokens/s), `resident-cpu-seconds` (by 10,000 tokens, without the server's, which is
`server-cpu-seconds`), `peak-rss` (bytes, of the process that captures). `two-layers` (tokens/s) and
`two-layers-cpu-seconds`: layers 10 and 20 at once against `one-layer`, 20 alone. Where others use the machine too,
trust processor seconds.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import sysconfig
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import psutil
from bench.support.environment import Rival, python_of
from bench.support.measure import Timings, cpu_seconds, interleaved, print_row, s3_server, say

from kubesae.corpus import read_shard_tokens
from kubesae.experiment import Experiment
from kubesae.ledger import Plan, read_record
from kubesae.model import resolve_model
from kubesae.model.smollm2 import demo_model
from kubesae.prepare import prepare
from kubesae.shards import layer_blocks, read_block
from kubesae.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

EARLIER, LAYER, CONTEXT, BATCH, THREADS = 10, 20, 512, 8, 2
CONTEXTS_PER_PART, PARTS = 8, 2
ROUNDS, TWO_LAYERS_ROUNDS = 5, 9
CONTEXTS = CONTEXTS_PER_PART * PARTS
SHARDS = ROUNDS + 1 + TWO_LAYERS_ROUNDS + 1
UNIT = 10_000
CONTEXTS_FILE = "contexts.npy"
SAME = 0.05
"""most that half the rows may lie from ours, as a share of the norm: float32 gives 0.014, the next layer 0.29"""

BARE = "bare-forward"
ENVIRONMENTS = {
    BARE: None,  # ours
    "sae-lens": "train_sae_lens",
    "transformer-lens": "collect_transformer_lens",
    "nnsight": "collect_nnsight",
}


@dataclass
class Side:
    """One that captures, in a process of its own.

    Attributes:
        name: as in the rows.
        process: what captures; it answers with what that took.
        folder: where a rival writes.
        server: of ours, the S3 server: its processor seconds are told apart.
        cpu, server_cpu: processor seconds of 10,000 tokens, a value a round.
        peak: most memory so far, in bytes.
        shards: those to come.

    """

    name: str
    process: Rival
    folder: Path
    server: psutil.Process | None = None
    cpu: list[float] = field(default_factory=list)
    server_cpu: list[float] = field(default_factory=list)
    peak: int = 0
    shards: Iterator[int] = field(default_factory=itertools.count)

    def capture(self, first: int, count: int) -> float:
        """Capture contexts, in place of what was captured before; return the tokens a second."""
        shutil.rmtree(self.folder, ignore_errors=True)
        server = cpu_seconds(self.server) if self.server else 0.0
        took = self.process.ask(do="capture", first=first, count=count, folder=str(self.folder))
        tokens = count * CONTEXT
        self.cpu.append(UNIT * took["cpu"] / tokens)
        if self.server:
            self.server_cpu.append(UNIT * (cpu_seconds(self.server) - server) / tokens)
        self.peak = took["peak"]
        return float(tokens / took["seconds"])

    def shard(self) -> float:
        """Capture the next shard; return the tokens a second."""
        return self.capture(next(self.shards) * CONTEXTS, CONTEXTS)

    def captured(self) -> npt.NDArray[np.float32]:
        """Return what a rival captured last, [rows, d_model]."""
        out = self.folder.with_suffix(".npy")
        self.process.ask(do="read", folder=str(self.folder), out=str(out))
        acts: npt.NDArray[np.float32] = np.load(out)
        return acts.reshape(-1, acts.shape[-1])


class Ours:
    """An experiment over the same text, one layer or two, and the store it is in."""

    def __init__(self, url: str, model: str, layers: list[int]) -> None:
        """Prepare the tokens."""
        self.store = open_store(url)
        self.experiment = Experiment.model_validate(
            {
                "name": "bench",
                "data": url,
                "model": model,
                "corpora": [{"name": "stdlib", "source": sysconfig.get_path("stdlib"), "format": "source", "pool": 2}],
                "layers": layers,
                "tokens": SHARDS * CONTEXTS * CONTEXT,
                "num_shards": SHARDS,
                "context": CONTEXT,
                "contexts_per_part": CONTEXTS_PER_PART,
                "contexts_per_block": 4,
                "chunk": CONTEXTS * CONTEXT,
                "pilot": {"tokens": CONTEXTS * CONTEXT, "chunk": CONTEXTS * CONTEXT},
                "collect": {"forward_batch": BATCH, "threads": THREADS},
            }
        )
        size = resolve_model(self.experiment).vocab_size
        self._manifest = prepare(self.experiment, self.store, vocab_size=lambda: size).manifest

    def contexts(self) -> npt.NDArray[np.uint32]:
        """Return all contexts, [contexts, T]."""
        shards = [read_shard_tokens(self.store, self._manifest, shard).ids for shard in range(SHARDS)]
        return np.concatenate(shards).reshape(-1, CONTEXT)

    def start(self, name: str, dtype: str, stack: ExitStack, folder: Path, server: psutil.Process) -> Side:
        """Start `kubesae collect`, which computes in `dtype`."""
        process = stack.enter_context(Rival("collect_kubesae", Path(sys.executable), dict(os.environ)))
        process.ask(experiment={**self.experiment.model_dump(mode="json"), "model_dtype": dtype})
        return Side(name, process, folder / name, server)

    def captured(self, shard: int) -> npt.NDArray[np.float32]:
        """Return the last layer of a shard, [rows, d_model]."""
        plan = Plan.of(self.experiment)
        records = [read_record(self.store, shard, part) for part in range(plan.parts(shard))]
        refs = [ref for record in records for ref in layer_blocks(record, plan, LAYER)]
        return np.concatenate([read_block(self.store, ref).float32() for ref in refs])


def start_rival(name: str, dtype: str, model: str, stack: ExitStack, folder: Path) -> Side:
    """Start a rival, which computes in `dtype`."""
    program = f"collect_{name.replace('-', '_')}"
    environment = ENVIRONMENTS[name]
    python = python_of(environment) if environment else Path(sys.executable)
    process = stack.enter_context(Rival(program, python, {**os.environ, "HF_HUB_OFFLINE": "1"}))
    case = {"model": model, "contexts": str(folder / CONTEXTS_FILE), "layer": LAYER, "batch": BATCH, "dtype": dtype}
    process.ask(do="begin", **case, threads=THREADS)
    return Side(name, process, folder / name)


def faster_dtype(name: str, model: str, folder: Path) -> str:
    """Return the dtype in which a rival takes less processor time for a batch."""
    taken = {}
    for dtype in ("bfloat16", "float32"):
        with ExitStack() as stack:
            side = start_rival(name, dtype, model, stack, folder)
            for first in (0, BATCH):
                side.capture(first, BATCH)
        taken[dtype] = side.cpu[-1]
    say(f"{name}: " + ", ".join(f"{dtype} {cpu:.1f} s/10k tokens" for dtype, cpu in taken.items()))
    return min(taken, key=taken.__getitem__)


def check(rival: Side, ours: npt.NDArray[np.float32]) -> None:
    """See that a rival captured what we did."""
    theirs = rival.captured()
    median = float(np.median(np.linalg.norm(theirs - ours, axis=1) / np.linalg.norm(ours, axis=1)))
    say(f"{rival.name}: half the rows are within {median:.4f} of ours")
    if median > SAME:
        raise SystemExit(f"{rival.name} captured something else: half the rows are {median:.3f} or more from ours.")


def print_against(
    case: str, ours: Timings, unit: str, against: str, theirs: Timings, *, better: str = "higher"
) -> None:
    """Print the row of a comparison."""
    ratio = theirs.ratio(ours) if better == "lower" else ours.ratio(theirs)
    print_row("collect", case, ours.median, unit, better, against, theirs.median, ratio)


def against_rivals(ours: Ours, side: Side, dtypes: dict[str, str], model: str, folder: Path) -> None:
    """Let ours and all rivals take turns, see that they captured the same, print the rows."""
    with ExitStack() as stack:
        bare, *rivals = [start_rival(name, dtype, model, stack, folder) for name, dtype in dtypes.items()]
        speeds = interleaved({one.name: one.shard for one in (side, bare, *rivals)}, ROUNDS)
        for rival in rivals:
            check(rival, ours.captured(ROUNDS))
    cpu = Timings(side.cpu[1:])
    for other in (bare, *rivals):
        print_against("resident", speeds["resident"], "tokens/s", other.name, speeds[other.name])
        print_against("resident-cpu-seconds", cpu, "s/10k tokens", other.name, Timings(other.cpu[1:]), better="lower")
        print_row("collect", "peak-rss", side.peak, "bytes", "lower", other.name, other.peak)
    print_row("collect", "server-cpu-seconds", Timings(side.server_cpu[1:]).median, "s/10k tokens", "lower")


def main() -> None:
    """Compare with the rivals, then two layers with one."""
    model = str(demo_model(say))
    with s3_server() as (server, folder), ExitStack() as stack:
        watched = psutil.Process(server.process.pid)
        say("preparing the tokens ...")
        ours, both = (Ours(f"{server.new_bucket()}/data", model, layers) for layers in ([LAYER], [EARLIER, LAYER]))
        np.save(folder / CONTEXTS_FILE, ours.contexts())
        dtypes = {name: faster_dtype(name, model, folder) for name in ENVIRONMENTS}
        one = ours.start("resident", dtypes[BARE], stack, folder, watched)
        against_rivals(ours, one, dtypes, model, folder)
        two = both.start("two-layers", dtypes[BARE], stack, folder, watched)
        speeds = interleaved({"two-layers": two.shard, "one-layer": one.shard}, TWO_LAYERS_ROUNDS)
    print_against("two-layers", speeds["two-layers"], "tokens/s", "one-layer", speeds["one-layer"])
    cpu = [Timings(side.cpu[-TWO_LAYERS_ROUNDS:]) for side in (two, one)]
    print_against("two-layers-cpu-seconds", cpu[0], "s/10k tokens", "one-layer", cpu[1], better="lower")


if __name__ == "__main__":
    main()
