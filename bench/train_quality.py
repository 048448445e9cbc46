"""What SAEs find of planted features: ours against SAELens, dictionary_learning and sparsify.

    make bench NAME=train-quality

2,048 directions in 256 dimensions, eight active in a row on average, some of them forty times as often as others; rows
have a mean as long as what is planted, and one in a hundred is five times as long: mean-shifted and outlier-heavy, as
activations are. Everyone trains a TopK SAE with 2,048 features, k = 8, on the same batches (2,000 of 1,024 rows) with
its own defaults; of sparsify's optimisers the better one counts. Rows are medians of five seeds, of weights and data:
`fvu`, `l0` and `dead-share` of 16,384 rows that no step has seen; `recovered-share` is the share of planted directions
that a row of the decoder has with a cosine above 0.9.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from bench.support.environment import Rival, python_of
from bench.support.measure import print_row, say
from bench.train import NAMES, Case, Ours

from kubesae.memory import keep_memory

CASE = Case("topk", 256, 2048, 8, 1024, 2000)
PLANTED, ACTIVE = 2048, 8
BATCHES, HELD = 500, 16
SEEDS = range(5)
VARIANTS = {
    "train_sae_lens": ("float32",),
    "train_dictionary_learning": ("float32",),
    "train_sparsify": ("adam-float32", "signum-float32"),
}
# name of the row, its unit, and which way is better
ROWS = {
    "fvu": ("fvu", "1", "lower"),
    "recovered-share": ("recovered", "1", "higher"),
    "dead-share": ("dead", "1", "lower"),
    "l0": ("l0", "features", "lower"),
}


def plant(seed: int, folder: Path) -> tuple[Path, Path]:
    """Write batches [BATCHES + HELD, batch, d] and the directions [PLANTED, d]; return both files."""
    generator = torch.Generator().manual_seed(1000 + seed)  # weights are drawn from the seed itself
    directions = torch.nn.functional.normalize(torch.randn(PLANTED, CASE.d, generator=generator), dim=1)
    rate = torch.linspace(0, 1, PLANTED).mul(np.log(40)).neg().exp()[torch.randperm(PLANTED, generator=generator)]
    rate *= ACTIVE / rate.sum()
    mean = torch.nn.functional.normalize(torch.randn(CASE.d, generator=generator), dim=0) * ACTIVE**0.5
    paths = folder / f"batches-{seed}.npy", folder / f"directions-{seed}.npy"
    np.save(paths[1], directions.numpy())
    shape = (BATCHES + HELD, CASE.batch, CASE.d)
    out = np.lib.format.open_memmap(paths[0], mode="w+", dtype=np.float32, shape=shape)
    for i in range(len(out)):
        on = torch.rand(CASE.batch, PLANTED, generator=generator) < rate
        x = (on * (torch.rand(on.shape, generator=generator) + 0.5)) @ directions + mean
        x += 0.02 * torch.randn(x.shape, generator=generator)
        x[torch.rand(CASE.batch, generator=generator) < 0.01] *= 5
        out[i] = x.numpy()
    return paths


def ours(batches: Path, directions: Path, seed: int) -> dict[str, float]:
    """Train ours, and return what is compared."""
    trained = Ours(CASE, np.load(batches, mmap_mode="r"), HELD, seed)
    trained.step(CASE.steps)
    sums = trained.evaluate()
    cosines = torch.from_numpy(np.load(directions)) @ trained.learner.weights.W_dec_FD.T
    return {
        "fvu": sums.fvu(),
        "l0": sums.l0(),
        "dead": sums.dead_share(),
        "recovered": float((cosines.amax(1) > 0.9).double().mean()),
    }


def theirs(name: str, variant: str, batches: Path, directions: Path, seed: int) -> dict[str, float]:
    """Train a rival, and return what is compared."""
    begin = {"data": str(batches), "steps": CASE.steps, "held": HELD, "seed": seed, "variant": variant}
    with Rival(name, python_of(name), {**os.environ, "SPARSIFY_DISABLE_TRITON": "1"}) as rival:
        rival.ask(do="begin", architecture=CASE.architecture, f=CASE.f, k=CASE.k, **begin)
        rival.ask(do="step", count=CASE.steps)
        return rival.ask(do="evaluate", directions=str(directions))


def main() -> None:
    """Train all with all seeds, and print the rows."""
    keep_memory()  # as `kubesae train` does
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, float]]] = {}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory(prefix="kubesae-bench-") as folder, torch.no_grad():
            paths = plant(seed, Path(folder))
            results = {"ours": ours(*paths, seed)}
            for name, variants in VARIANTS.items():
                for variant in variants:
                    results[f"{name} {variant}"] = theirs(name, variant, *paths, seed)
        for key, result in results.items():
            say(f"seed {seed}, {key}: " + ", ".join(f"{what} {value:.4f}" for what, value in result.items()))
            found.setdefault(key, []).append(result)
    medians = {key: {what: statistics.median(r[what] for r in all_) for what in all_[0]} for key, all_ in found.items()}
    for name in VARIANTS:
        best = min((key for key in medians if key.startswith(f"{name} ")), key=lambda key: medians[key]["fvu"])
        for row, (what, unit, better) in ROWS.items():
            print_row("train-quality", row, medians["ours"][what], unit, better, NAMES[name], medians[best][what])


if __name__ == "__main__":
    main()
