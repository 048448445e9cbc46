"""How training grows with the dictionary and with ranks, and one step at the size that kubesae is for.

    make bench NAME=scaling
    python -m bench.scaling 8x real-size        some of the cases

Each case is a process of its own, so that its peak memory is its own: a learner, as `kubesae train` has one, takes
steps on rows that lie in memory. TopK with AuxK on: one feature in 16 never fires, by its bias, and counts as dead.
Rows are Gaussian: what a step costs does not depend on them.

Rows: `tokens-per-second-<case>` and `peak-rss-<case>` of width 512 with 4, 8 and 16 times as many features on all
cores, and of `8x` on one thread by one rank and on two threads by two (torchrun, gloo), the second against the first;
and `real-size-step-seconds` and `real-size-peak-rss` of 7,168 x 57,344 with the default k and batch. That one takes
16 GB, and is left out, with a word on it, where less is available.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch
from bench.support.measure import GB, print_row, say

from kubesae.experiment import Sae as Settings
from kubesae.sae import Normaliser, SaeConfig, initial_weights
from kubesae.train.distributed import join_ranks
from kubesae.train.learner import Learner

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Case:
    """One size. `threads` are those of each rank (None: as torch chooses); `needs`: GB that have to be available."""

    d: int
    f: int
    k: int
    batch: int
    steps: int
    ranks: int = 1
    threads: int | None = None
    needs: float = 1


SETTINGS = Settings()
CASES = {
    "4x": Case(512, 2048, 32, 2048, 20),
    "8x": Case(512, 4096, 32, 2048, 20),
    "16x": Case(512, 8192, 32, 2048, 20),
    "1-rank": Case(512, 4096, 32, 2048, 20, threads=1),
    "2-ranks": Case(512, 4096, 32, 2048, 20, ranks=2, threads=1),
    "real-size": Case(7168, 57_344, SETTINGS.k, SETTINGS.batch_size, 2, needs=17),
}
WARM_UP = 1
DEAD_BIAS = -5.0
DEAD_AFTER = 10_000_000
SAMPLE = 1024


def take_steps(case: Case) -> None:
    """Take the steps of a case in this process, one of its ranks; print what they took as JSON."""
    if case.threads:
        torch.set_num_threads(case.threads)
    settings = Settings.model_validate({"architecture": "topk", "k": case.k})
    config = SaeConfig(architecture="topk", d_model=case.d, d_sae=case.f, k=case.k)
    with join_ranks("cpu") as ranks, torch.no_grad():
        rows = case.batch // ranks.world
        x_BD = torch.randn(rows, case.d, generator=torch.Generator().manual_seed(1 + ranks.rank))  # 0 draws the weights
        weights = initial_weights(config, Normaliser.fit(x_BD[:SAMPLE]).apply(x_BD[:SAMPLE]), seed=0)
        ranks.broadcast(weights)
        dead = case.f // 16
        weights.b_enc_F[:dead] = DEAD_BIAS
        learner = Learner(config, settings, weights, ranks, 100, DEAD_AFTER)
        seconds = []
        for _ in range(WARM_UP + case.steps):
            learner.tensors()["last_fired"][:dead] = -DEAD_AFTER
            began = time.perf_counter()
            result = learner.step(x_BD, case.batch)
            seconds.append(time.perf_counter() - began)
            assert result.dead >= dead, result
        if ranks.first:
            print(json.dumps({"seconds": statistics.median(seconds[WARM_UP:]), "peak": peak_rss()}))


def peak_rss() -> int:
    """Return the most memory that this process has held, in bytes: of it alone, where rusage knows its parent's too."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def run(name: str) -> dict[str, Any] | None:
    """Run a case in processes of its own; None where there is not enough memory for it."""
    case, available = CASES[name], psutil.virtual_memory().available / GB
    if available < case.needs:
        say(f"{name}: left out: it takes up to {case.needs} GB, and {available:.1f} GB are available")
        return None
    say(f"{name}: {case} ...")
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={case.ranks}"]
    command = [sys.executable, *(torchrun if case.ranks > 1 else []), "-m", "bench.scaling", "--here", name]
    environment = {**os.environ, "OMP_NUM_THREADS": str(case.threads)} if case.threads else None
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each case."""
    parser = argparse.ArgumentParser("bench.scaling")
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"which of {', '.join(CASES)} (default: all)")
    parser.add_argument("--here", help="take the steps of one case in this process", metavar="CASE")
    options = parser.parse_args(arguments)
    if options.here:
        take_steps(CASES[options.here])
        return
    speeds: dict[str, float] = {}
    for name in options.cases:
        found = run(name)
        if found is None:
            continue
        if name == "real-size":
            print_row("scaling", "real-size-step-seconds", found["seconds"], "s", "lower")
        else:
            speeds[name] = CASES[name].batch / found["seconds"]
            other = "1-rank" if name == "2-ranks" and "1-rank" in speeds else None
            case = f"tokens-per-second-{name}"
            print_row("scaling", case, speeds[name], "1/s", against=other, other=speeds[other] if other else None)
        case = "real-size-peak-rss" if name == "real-size" else f"peak-rss-{name}"
        print_row("scaling", case, found["peak"] / GB, "GB", "lower")


if __name__ == "__main__":
    main()
