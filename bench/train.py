"""Training steps: ours against SAELens, dictionary_learning and sparsify, and against the encoder's product alone.

    make bench NAME=train

All get the same batches: planted features with a mean and heavy rows, in float32 in memory, one thread each. Each rival
runs in an environment of its own with its defaults, in float32 and in bfloat16, and its faster way counts. Steps are
interleaved; a step is everything that a library does to a batch, the optimiser included (AuxK is idle: none are dead).

Rows, for `topk` and `batchtopk` at d = 512, F = 4,096 (k = 32, batches of 2,048) and 1,024, 16,384 (k = 64, 1,024):
`<case>`, CPU-microseconds a token, against each rival and against `encoder-floor`, the product that no step can do
without at the rate that this machine multiplies bfloat16 (its ratio is the share of the floor that is reached); and
`fvu-equal-tokens-<case>`: FVU on held-out rows after the same tokens.
"""

from __future__ import annotations

import argparse
import operator
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from bench.support.environment import Rival, python_of
from bench.support.measure import print_row, say

from kubesae.experiment import Sae as Settings
from kubesae.fixture.planted import Planted
from kubesae.memory import keep_memory
from kubesae.precision import matmul_dtype
from kubesae.sae import Normaliser, SaeConfig, Sums, initial_weights
from kubesae.train.distributed import Ranks
from kubesae.train.learner import Learner
from kubesae.train.start import rows_until_dead

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Case:
    """One size; `steps` are those after which FVU is compared."""

    architecture: str
    d: int
    f: int
    k: int
    batch: int
    steps: int

    @property
    def name(self) -> str:
        """As in the rows."""
        return f"{self.architecture}-{self.d}-{self.f}"


SIZES = ((512, 4096, 32, 2048, 120), (1024, 16384, 64, 1024, 40))
CASES = {case.name: case for sizes in SIZES for case in (Case("topk", *sizes), Case("batchtopk", *sizes))}
VARIANTS = {
    "train_sae_lens": ("float32", "bfloat16"),
    "train_dictionary_learning": ("float32", "bfloat16"),
    "train_sparsify": ("adam-float32", "adam-bfloat16", "signum-float32"),
}
NAMES = {name: name.removeprefix("train_").replace("_", "-") for name in VARIANTS}
ROUNDS, STEPS_A_ROUND = 5, 2
PLANTED, ACTIVE = 2, 12
"""planted features, as a multiple of d, and how many of them a row has on average"""


def write_batches(case: Case, folder: Path) -> Path:
    """Write [steps + 1, batch, d] float32 of planted features; rows have a mean, and one in a hundred is heavy."""
    path = folder / f"{case.d}.npy"
    if not path.exists():
        generator = torch.Generator().manual_seed(1)
        planted = torch.from_numpy(Planted.draw(case.d, PLANTED * case.d, seed=1, layer=0).directions_FD)
        rate = ACTIVE / len(planted) * 2 * torch.rand(len(planted), generator=generator)
        mean = 0.5 * torch.randn(case.d, generator=generator) * ACTIVE**0.5 / case.d**0.5
        shape = (case.steps + 1, case.batch, case.d)
        out = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for i in range(len(out)):
            on = torch.rand(case.batch, len(planted), generator=generator) < rate
            size = torch.rand(on.shape, generator=generator) + 0.5
            x = (on * size) @ planted + mean + 0.05 * torch.randn(case.batch, case.d, generator=generator)
            x[torch.rand(case.batch, generator=generator) < 0.01] *= 5
            out[i] = (x * (case.d / ACTIVE) ** 0.5).numpy()
    return path


@dataclass
class Ours:
    """Our learner on the batches, as a trainer of `kubesae train` calls it."""

    case: Case
    batches: np.ndarray[tuple[int, int, int], np.dtype[np.float32]]
    held: int = 1
    seed: int = 0
    at: int = 0
    learner: Learner = field(init=False)
    _normaliser: Normaliser = field(init=False)

    def __post_init__(self) -> None:
        """Start as a fresh training does."""
        case = self.case
        config = SaeConfig.model_validate(
            {"architecture": case.architecture, "d_model": case.d, "d_sae": case.f, "k": case.k}
        )
        settings = Settings.model_validate({"architecture": case.architecture, "k": case.k})
        sample_SD = torch.from_numpy(np.array(self.batches[0]))
        self._normaliser = Normaliser.fit(sample_SD)
        epochs = -(-case.steps // (len(self.batches) - self.held))
        settings = settings.model_copy(update={"epochs": epochs})
        dead_after = rows_until_dead(settings, case.batch * case.steps // epochs)
        weights = initial_weights(config, self._normaliser.apply(sample_SD), seed=self.seed)
        ranks = Ranks(0, 1, torch.device("cpu"))
        self.learner = Learner(config, settings, weights, ranks, case.steps, dead_after)

    def step(self, count: int) -> float:
        """Take steps; return the CPU-microseconds a token."""
        spent = 0.0
        for _ in range(count):
            x_BD = torch.from_numpy(np.array(self.batches[self.at % (len(self.batches) - self.held)]))
            before = time.process_time()
            self.learner.step(self._normaliser.apply(x_BD), len(x_BD))
            spent += time.process_time() - before
            self.at += 1
        return 1e6 * spent / (count * self.case.batch)

    def fvu(self) -> float:
        """Return the FVU of rows that no step has seen, with k active features a row on average."""
        return self.evaluate().fvu()

    def evaluate(self) -> Sums:
        """Return sums over the last `held` batches, which no step has seen."""
        rows = [self._normaliser.apply(torch.from_numpy(np.array(x))) for x in self.batches[-self.held :]]
        self.learner.find_threshold(rows)
        return reduce(operator.add, (self.learner.evaluate(x_BD).sums for x_BD in rows))


def encoder_floor(case: Case) -> float:
    """Return the CPU-microseconds a token of the encoder's product alone, in the dtype that products take here."""
    dtype = matmul_dtype(torch.device("cpu"))
    x, W = torch.randn(case.batch, case.d).to(dtype), torch.randn(case.f, case.d).to(dtype)
    z = torch.empty(case.batch, case.f, dtype=dtype)
    before = time.process_time()
    for _ in range(4):
        torch.mm(x, W.T, out=z)
    return 1e6 * (time.process_time() - before) / (4 * case.batch)


def measure(case: Case, folder: Path) -> None:
    """Measure one case, and print its rows."""
    say(f"{case.name}: writing batches ...")
    path = write_batches(case, folder)
    batches = np.load(path, mmap_mode="r")
    taking_part = {name: v for name, v in VARIANTS.items() if case.architecture == "topk" or name != "train_sparsify"}
    with ExitStack() as stack:
        rivals = {
            f"{name} {variant}": stack.enter_context(
                Rival(name, python_of(name), {**os.environ, "SPARSIFY_DISABLE_TRITON": "1"})
            )
            for name, variants in taking_part.items()
            for variant in variants
        }
        begun = {"do": "begin", "data": str(path), "architecture": case.architecture, "f": case.f, "k": case.k}
        for key, rival in rivals.items():
            rival.ask(**begun, steps=case.steps, variant=key.partition(" ")[2])
        ours = Ours(case, batches)
        times: dict[str, list[float]] = {key: [] for key in ["ours", "floor", *rivals]}
        for number in range(ROUNDS + 1):
            values = {"ours": ours.step(STEPS_A_ROUND), "floor": encoder_floor(case)}
            for key, rival in rivals.items():
                values[key] = rival.ask(do="step", count=STEPS_A_ROUND)["microseconds"]
            say(f"{case.name} round {number}: " + ", ".join(f"{key} {value:.0f}" for key, value in values.items()))
            if number:
                for key, value in values.items():
                    times[key].append(value)
        medians = {key: statistics.median(values) for key, values in times.items()}
        ours.step(case.steps - ours.at)
        for name in taking_part:
            keys = [key for key in rivals if key.startswith(f"{name} ")]
            fastest = min(keys, key=medians.__getitem__)
            fvus = {key: finish(rivals[key], case) for key in keys}
            best = min(fvus, key=fvus.__getitem__)
            say(f"{case.name}: {NAMES[name]}: fastest {fastest}, FVU {fvus}")
            _row(case.name, medians["ours"], "us", NAMES[name], medians[fastest])
            _row(f"fvu-equal-tokens-{case.name}", ours.fvu(), "1", NAMES[name], fvus[best])
        _row(case.name, medians["ours"], "us", "encoder-floor", medians["floor"])


def finish(rival: Rival, case: Case) -> float:
    """Let a rival take the steps that are left; return its FVU."""
    rival.ask(do="step", count=case.steps - (ROUNDS + 1) * STEPS_A_ROUND)
    return float(rival.ask(do="evaluate")["fvu"])


def _row(case: str, value: float, unit: str, against: str, other: float) -> None:
    print_row("train", case, value, unit, "lower", against, other)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure each case."""
    parser = argparse.ArgumentParser("bench.train")
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"which of {', '.join(CASES)} (default: all)")
    options = parser.parse_args(arguments)
    keep_memory()  # as `kubesae train` does
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="kubesae-bench-") as folder, torch.no_grad():
        for name in options.cases:
            measure(CASES[name], Path(folder))


if __name__ == "__main__":
    main()
