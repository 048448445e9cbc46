"""Interpretation: the pass over activations against the product alone, SAEDashboard and delphi; its statistics alone.

    make bench NAME=interpret

Rows:

- `statistics`: seconds, from sparse codes of 1,048,576 tokens (k = 32, 16,384 features, of which some are frequent and
  most are rare) to everything that is stored: the cache, statistics, contexts of the largest activations and of
  samples with the activation on every token. Two cores; at most 45. `statistics-peak-rss`: the most memory of it.
- `coactivation`: seconds from the cache of these to the co-active features of every feature.
- `encode`: tokens/s from stored shards to sparse codes, against `encoder-floor`: the encoder's product over the same
  rows, in the dtype in which it is made here, and nothing else.
- `features-tokens-per-second`: features x tokens by seconds, of all that `kubesae interpret` does, the page included,
  against `sae-dashboard` (its runner, for some features, with the activations in its cache; it writes no page) and
  `delphi` (its latent cache alone, given the activations). All have the same 262,144 tokens of the demo's corpus, nine
  tenths of it, layer 12 of SmolLM2-135M, and the same SAE (TopK, 4,608 features, k = 32, random directions: no row has
  fewer codes than a trained one's). At least 40 of SAEDashboard. Of few tokens it is less: what is done once for each
  feature (logits, the page) is more than half of our time over a quarter of them.
- `page-bytes-per-feature`, `page-write-ms-per-feature`, `page-first-feature-ms`: see `bench.support.page`.
- `state-bytes`: what one worker's statistics take (16,384 features, 20 rows of each kind); `state-bytes-4x-tokens` and
  `state-bytes-2x-features` against it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from bench.codec import LAYER, collected
from bench.support.environment import Rival, python_of
from bench.support.measure import interleaved, print_row, say
from bench.support.page import page_rows

from kubesae.browse.page import write_page
from kubesae.cli.fixture import SMALL
from kubesae.corpus import read_shard_tokens, require_manifest
from kubesae.experiment import Experiment, Interpret, canonical_json
from kubesae.features import CodeCache, CodesBuilder, Source, write_stored
from kubesae.fixture import write_fixture
from kubesae.interpret import answer, interpret
from kubesae.interpret.answers.coactivation import coactivation_table, sample_rows
from kubesae.interpret.statistics import Statistics
from kubesae.interpret.storing import store_codes, tables_of
from kubesae.ledger import Plan, keys, require_identity
from kubesae.memory import keep_memory
from kubesae.model.smollm2 import demo_model
from kubesae.precision import matmul_dtype
from kubesae.sae import Normaliser, SaeConfig, Weights, save_sae
from kubesae.sae.formats import export_sae
from kubesae.sae.named import open_named
from kubesae.shards import read_block, read_index
from kubesae.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from kubesae.store import Store

    Slice = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]

TOKENS, FEATURES, K, SLICE = 1 << 20, 16_384, 32, 4096
SETTINGS = Interpret()
RATE_TOKENS, RATE_FEATURES, RATE_K = 1 << 18, 4608, 32
DASHBOARD_FEATURES = 128
ROUNDS = 3


def synthetic_codes(tokens: int, features: int, seed: int = 0) -> Iterator[Slice]:
    """Yield the codes of slices of rows: feature f is on in proportion to 1 / (f + 60), K different ones of each row.

    Of each: row, feature and activation of every entry.
    """
    generator = np.random.default_rng(seed)
    edge_F = np.cumsum(1 / (np.arange(features) + 60.0))
    for first in range(0, tokens, SLICE):
        rows = min(SLICE, tokens - first)
        drawn = np.searchsorted(edge_F, generator.random((rows, K + 16)) * edge_F[-1])
        drawn.sort(1)
        again = np.diff(drawn, prepend=-1, axis=1) == 0
        chosen = np.sort(np.where(again, features, drawn), 1)[:, :K]
        there = chosen < features
        row = np.repeat(np.arange(first, first + rows), K).reshape(rows, K)[there]
        yield row, chosen[there], generator.lognormal(0.0, 1.0, int(there.sum())).astype(np.float32)


def count(tokens: int, features: int) -> tuple[Statistics, float]:
    """Return statistics of synthetic codes, and the seconds that counting took."""
    statistics, seconds = Statistics.zero(features, SETTINGS.top_k, SETTINGS.samples), 0.0
    for row, feature, value in synthetic_codes(tokens, features):
        before = time.perf_counter()
        statistics.add(row, feature, value, rows=SLICE, flagged=0)
        seconds += time.perf_counter() - before
    return statistics, seconds


def statistics_alone(folder: str) -> None:
    """Print the seconds from codes to all that is stored, in a process of its own."""
    store = open_store(folder)
    identity, manifest = require_identity(store), require_manifest(store)
    statistics = Statistics.zero(FEATURES, SETTINGS.top_k, SETTINGS.samples)
    codes = CodesBuilder(0, TOKENS, FEATURES)
    slices = list(synthetic_codes(TOKENS, FEATURES))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = time.perf_counter()
    for number, (row, feature, value) in enumerate(slices):
        statistics.add(row, feature, value, rows=SLICE, flagged=0)
        codes.add(np.arange(number * SLICE, (number + 1) * SLICE), row, feature, value)
    counted = time.perf_counter()
    file = store_codes(store, "bench", 0, codes.finish())
    cached = time.perf_counter()
    cache = CodeCache(store, [file], FEATURES)
    tables = tables_of(store, manifest, Plan.of(identity), statistics, cache, SETTINGS.context_tokens)
    kept = SETTINGS.model_dump(exclude={"unit_tokens"})
    source = Source(identity=identity.sha256, sae="bench", sae_sha256="", layer=0, rows=TOKENS, **kept)
    write_stored(store, source, statistics.rows, statistics.flagged, tables, [file])
    seconds = time.perf_counter() - before
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) * 1024
    say(
        f"counting {counted - before:.1f} s, cache {cached - counted:.1f} s, contexts {seconds - cached + before:.1f} s"
    )
    before = time.perf_counter()
    coactivation_table(sample_rows(cache.files(), TOKENS, file.entries, FEATURES))
    print(seconds, peak, time.perf_counter() - before)


def statistics_rows(folder: Path) -> None:
    """Print `statistics` and `statistics-peak-rss`."""
    layout = {"layers": [0], "context": 512, "contexts_per_part": 64, "contexts_per_block": 16, "num_shards": 1}
    experiment = Experiment.model_validate(SMALL | layout | {"data": str(folder), "tokens": TOKENS})
    write_fixture(experiment, open_store(str(folder)), d_model=4, features=4)
    runs = []
    for _ in range(ROUNDS):
        command = [sys.executable, "-m", "bench.interpret", str(folder)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
        runs.append([float(number) for number in done.stdout.split()])
    seconds, peak, coactivation = np.median(runs, axis=0).tolist()
    print_row("interpret", "statistics", seconds, "s", "lower", against="limit", other=45)
    print_row("interpret", "statistics-peak-rss", peak, "B", "lower")
    print_row("interpret", "coactivation", coactivation, "s", "lower")


def state_rows() -> None:
    """Print what statistics take, and how that grows."""

    def size(tokens: int, features: int) -> int:
        return count(tokens, features)[0].nbytes

    base = size(TOKENS // 4, FEATURES)
    print_row("interpret", "state-bytes", base, "B", "lower")
    for case, other in (("4x-tokens", size(TOKENS, FEATURES)), ("2x-features", size(TOKENS // 4, 2 * FEATURES))):
        print_row("interpret", f"state-bytes-{case}", other, "B", "lower", against="state-bytes", other=base)


def write_random_sae(store: Store, d_model: int) -> None:
    """Write a TopK SAE whose features are random directions."""
    generator = torch.Generator().manual_seed(0)
    directions_FD = torch.nn.functional.normalize(torch.randn(RATE_FEATURES, d_model, generator=generator))
    weights = Weights(directions_FD, torch.zeros(RATE_FEATURES), directions_FD.clone(), torch.zeros(d_model))
    config = SaeConfig(architecture="topk", d_model=d_model, d_sae=RATE_FEATURES, k=RATE_K)
    folder = keys.checkpoint_folder("random", 1)
    save_sae(store, folder, config, weights, Normaliser(torch.zeros(d_model), 1.0), {"layer": LAYER, "model": "demo"})
    pointer = {"checkpoint": folder.removeprefix(keys.sae_folder("random")).rstrip("/")}
    store.put(keys.best("random"), canonical_json(pointer))


def encode_rows(store: Store) -> None:
    """Print `encode`."""
    identity = require_identity(store)
    named, refs = open_named(store, "random", identity), read_index(store, identity, LAYER)
    refs = refs[: len(refs) // 4]
    rows = sum(ref.rows for ref in refs)
    dtype = matmul_dtype(torch.device("cpu"))
    W_DF = named.sae.weights.W_enc_FD.T.to(dtype).contiguous()
    x_ND = torch.randn(SLICE, identity.d_model).to(dtype)
    z_NF = torch.empty(SLICE, RATE_FEATURES, dtype=dtype)

    def encode() -> float:
        before = time.perf_counter()
        for ref in refs:
            block = read_block(store, ref)
            for start in range(0, len(block.flags), SLICE):
                named.sae.codes(torch.from_numpy(block.stored.float32(slice(start, start + SLICE))))
        return rows / (time.perf_counter() - before)

    def floor() -> float:
        before = time.perf_counter()
        for _ in range(rows // SLICE):
            torch.mm(x_ND, W_DF, out=z_NF)
        return rows // SLICE * SLICE / (time.perf_counter() - before)

    found = interleaved({"encode": encode, "encoder-floor": floor}, ROUNDS)
    ours, other = found["encode"], found["encoder-floor"]
    ratio = ours.ratio(other)
    print_row("interpret", "encode", ours.median, "tokens/s", against="encoder-floor", other=other.median, ratio=ratio)


def write_for_rivals(store: Store, folder: Path) -> dict[str, str]:
    """Write what the rivals read: contexts, activations as float32, the SAE in their formats."""
    identity, manifest = require_identity(store), require_manifest(store)
    whole = identity.tokens // identity.context
    ids = read_shard_tokens(store, manifest, 0).ids[: whole * identity.context]
    np.save(folder / "contexts.npy", ids.reshape(whole, identity.context))
    blocks = [read_block(store, ref).float32() for ref in read_index(store, identity, LAYER)]
    acts = np.concatenate(blocks)[: whole * identity.context]
    np.save(folder / "acts.npy", acts.reshape(whole, identity.context, -1))
    sae = open_named(store, "random", identity).sae
    for name in ("sae-lens", "sparsify"):
        export_sae(sae, name, open_store(str(folder / name)))
    return {"contexts": str(folder / "contexts.npy"), "activations": str(folder / "acts.npy")}


def rate_rows(store: Store, experiment: Experiment, folder: Path) -> None:
    """Print `features-tokens-per-second`, ours beside the rivals'."""
    files = write_for_rivals(store, folder)
    tokens, threads = require_identity(store).tokens, torch.get_num_threads()

    def ours() -> float:
        for key in store.list("interpret/"):
            store.delete(key)
        before = time.perf_counter()
        found = interpret(store, store, "random", SETTINGS)
        answer(found, experiment)
        write_page(store, store, found.stored)
        return RATE_FEATURES * tokens / (time.perf_counter() - before)

    with ExitStack() as stack:
        environment = {**os.environ, "SPARSIFY_DISABLE_TRITON": "1", "HF_HUB_OFFLINE": "1"}
        dashboard, delphi = (
            stack.enter_context(Rival(name, python_of(name), environment))
            for name in ("interpret_sae_dashboard", "interpret_delphi")
        )
        cache = {"cache": str(folder / "dashboard"), "hook": f"blocks.{LAYER}.hook_resid_post"}
        cache |= {"model": str(demo_model(say)), "sae": str(folder / "sae-lens")}
        dashboard.ask(do="begin", threads=threads, **cache, **files)
        delphi.ask(do="begin", sae=str(folder / "sparsify"), threads=threads, **files)
        turn = iter(range(ROUNDS + 1))

        def of_dashboard() -> float:
            answer = dashboard.ask(do="run", first=0, count=DASHBOARD_FEATURES)
            return float(DASHBOARD_FEATURES * tokens / answer["seconds"])

        def of_delphi() -> float:
            answer = delphi.ask(do="run", folder=str(folder / f"delphi-{next(turn)}"))
            return float(RATE_FEATURES * tokens / answer["seconds"])

        found = interleaved({"ours": ours, "sae-dashboard": of_dashboard, "delphi": of_delphi}, ROUNDS)
    for name in ("sae-dashboard", "delphi"):
        mine, theirs = found["ours"], found[name]
        case, ratio = "features-tokens-per-second", mine.ratio(theirs)
        print_row("interpret", case, mine.median, "1/s", against=name, other=theirs.median, ratio=ratio)


def main() -> None:
    """Measure, and print the rows."""
    if len(sys.argv) > 1:
        statistics_alone(sys.argv[1])
        return
    keep_memory()  # as `kubesae interpret` does
    with tempfile.TemporaryDirectory(prefix="kubesae-bench-") as name, torch.no_grad():
        folder = Path(name)
        statistics_rows(folder / "synthetic")
        state_rows()
        store, experiment = collected(folder, RATE_TOKENS)
        write_random_sae(store, require_identity(store).d_model)
        encode_rows(store)
        rate_rows(store, experiment, folder)
        page_rows(store, store, "random")


if __name__ == "__main__":
    main()
