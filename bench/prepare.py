"""Preparing at size: dealing a billion tokens in bounded memory, going on after a kill, and tokenising on all cores.

    make bench NAME=prepare
    python -m bench.prepare --tokens 1e8        a tenth of it

The segments are synthetic, as 41 files of Wikipedia would give them: contexts of 1,024 random ids, documents of 700
tokens in the mean, 2.5 pieces a context. They are dealt to 32 shards of a folder, by `kubesae.prepare`'s own code, in a
process of its own; another one is killed when half of the shards are there, and a third goes on. 1e9 tokens take 12 GB
of the disk that TMPDIR is on. Every run has to end with the same manifest.

- `deal-<tokens>-seconds`, `deal-<tokens>-peak-rss`: of the undisturbed one; the memory against the token ids dealt.
- `resume-seconds`: until the third process knows what is done; `resume-to-end-seconds`: until the manifest, against
  the whole deal.
- `tokenise`: tokens a second of the standard library's source, by the segments' own code on all cores, against
  `tokenizer-alone`: the same texts through `encode_batch` and nothing else, in turns. `tokenise-cpu-seconds`: what both
  take of the processor for a million tokens.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers
from bench.support.measure import GB, cpu_seconds, interleaved, print_row, say

from kubesae.corpus import Request, Tokenizer, TokenizerInfo, open_source
from kubesae.experiment import Corpus, Experiment
from kubesae.ledger import Plan, keys
from kubesae.model.smollm2 import demo_model
from kubesae.prepare.deal import Pool
from kubesae.prepare.fill import Filled
from kubesae.prepare.segments import PIECE_SCHEMA, SegmentMaker, Settings
from kubesae.prepare.shards import deal_tokens
from kubesae.store import open_store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kubesae.store import Store

UNITS, SHARDS, CONTEXT, VOCABULARY, DOCUMENT = 41, 32, 1024, 50_000, 700
TOKENISED, ROUNDS = 3_000_000, 5


def experiment_at(url: str, tokens: int) -> Experiment:
    """Return the experiment that is dealt."""
    corpora = [{"name": "wikipedia", "source": "planted"}]
    values: dict[str, Any] = {"data": url, "model": "planted", "layers": [0], "corpora": corpora}
    return Experiment.model_validate(values | {"tokens": tokens, "num_shards": SHARDS, "context": CONTEXT})


def sizes_of(tokens: int) -> tuple[int, ...]:
    """Contexts of each unit, of which there are a few more than are dealt."""
    plan = Plan.of(experiment_at("unused", tokens))
    return (-(-sum(plan.contexts(shard) for shard in range(SHARDS)) // UNITS) + 1,) * UNITS


def write_segments(store: Store, sizes: Sequence[int]) -> None:
    """Write the segments, a unit at a time."""
    for unit, size in enumerate(sizes):
        generator = np.random.Generator(np.random.PCG64(unit))
        stem = keys.segment("wikipedia", unit)
        ids = generator.integers(0, VOCABULARY, (size, CONTEXT), np.uint32)
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "ids.npy", ids, allow_pickle=False)
            store.put_file(f"{stem}.npy", Path(folder) / "ids.npy")
            pq.write_table(_pieces(generator, unit, size), Path(folder) / "pieces")
            store.put_file(f"{stem}.parquet", Path(folder) / "pieces")


def _pieces(generator: np.random.Generator, unit: int, size: int) -> pa.Table:
    """Return pieces whose edges are those of contexts and of documents."""
    total = size * CONTEXT
    ends = np.cumsum(generator.geometric(1 / DOCUMENT, 2 * total // DOCUMENT))
    starts = np.union1d(np.arange(0, total, CONTEXT), np.append(0, ends[ends < total]))
    document = np.searchsorted(ends, starts, side="right")
    offset = starts - np.append(0, ends)[document]
    columns = {
        "context": starts // CONTEXT,
        "start": starts % CONTEXT,
        "tokens": np.diff(np.append(starts, total)),
        "document": [f"file-{unit:05d}:{number}" for number in document],
        "offset": offset,
        "char": 4 * offset,
    }
    return pa.table(columns, schema=PIECE_SCHEMA)


def deal_here(url: str, tokens: int) -> None:
    """Deal in this process; print what was said with its time, and at the end what it took."""
    experiment, sizes = experiment_at(url, tokens), sizes_of(tokens)
    plan = Plan.of(experiment)
    wanted = sum(plan.contexts(shard) for shard in range(SHARDS))
    filled = Filled(Pool("wikipedia", sizes), wanted, {"revision": "planted"})
    info = TokenizerInfo(sha256="planted", size=VOCABULARY, bos=None, eos=None, special=())
    began = time.perf_counter()

    def note(line: str) -> None:
        print(json.dumps({"line": line, "seconds": time.perf_counter() - began}), flush=True)

    manifest = deal_tokens(open_store(url), plan, Request.of(experiment), info, [filled], note)
    note(manifest.sha256)
    print(json.dumps({"peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


def deal_apart(url: str, tokens: int, until: str | None = None) -> list[dict[str, Any]]:
    """Deal in another process; with `until`, kill it when it says a line that begins so. Return what it printed."""
    command = [sys.executable, "-m", "bench.prepare", "--tokens", str(tokens), "--here", url]
    printed = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        for line in process.stdout or ():
            printed.append(json.loads(line))
            if until and printed[-1].get("line", "").startswith(until):
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
    assert process.returncode == (-signal.SIGKILL if until else 0), printed
    return printed


def measure_deal(tokens: int) -> None:
    """Deal, kill and resume; print the rows."""
    with tempfile.TemporaryDirectory(prefix="kubesae-bench-") as folder:
        store = open_store(folder)
        say(f"writing segments of {tokens:,} tokens ...")
        write_segments(store, sizes_of(tokens))
        say("dealing ...")
        *_, whole, memory = deal_apart(folder, tokens)
        case = f"deal-{tokens:.0e}".replace("+0", "")
        print_row("prepare", f"{case}-seconds", whole["seconds"], "s", "lower")
        print_row(
            "prepare",
            f"{case}-peak-rss",
            memory["peak"] / GB,
            "GB",
            "lower",
            against="token-ids",
            other=4 * tokens / GB,
        )
        for shard in range(SHARDS):
            store.delete(keys.dealt(shard))
        deal_apart(folder, tokens, until=f"Shard {SHARDS // 2 - 1}:")
        first, *_, last, _ = deal_apart(folder, tokens)
        assert first["line"] == f"{SHARDS // 2} of {SHARDS} shards were dealt before", first
        assert last["line"] == whole["line"], "another manifest"
        print_row("prepare", "resume-seconds", first["seconds"], "s", "lower")
        print_row(
            "prepare", "resume-to-end-seconds", last["seconds"], "s", "lower", against=case, other=whole["seconds"]
        )


def measure_tokeniser() -> None:
    """Tokenise the same text both ways; print the row."""
    tokenizer = Tokenizer.load(str(demo_model(say)), None)
    source = open_source(Corpus(name="stdlib", source=f"{sysconfig.get_path('stdlib')}/*.py", format="source"), 0)
    texts = [document.text for unit in range(source.units) for document in source.documents(unit)]
    tokens = sum(len(encoded.ids) for encoded in tokenizer.encode(texts))
    bare = tokenizers.Tokenizer.from_str(tokenizer.definition.decode())
    bare.encode_special_tokens = True
    settings = Settings(tokenizer.info.sha256, "", "", CONTEXT, None, None, TOKENISED)

    def segments() -> float:
        with tempfile.TemporaryDirectory(prefix="kubesae-bench-") as folder:
            maker = SegmentMaker(open_store(folder), tokenizer, source, "stdlib", settings)
            began = time.perf_counter()
            for unit in range(source.units):
                maker.make(unit)
            return tokens / (time.perf_counter() - began)

    def alone() -> float:
        began = time.perf_counter()
        bare.encode_batch(texts, add_special_tokens=False)
        return tokens / (time.perf_counter() - began)

    found = interleaved({"tokenise": segments, "tokenizer-alone": alone}, ROUNDS)
    ours, theirs = found["tokenise"], found["tokenizer-alone"]
    print_row("prepare", "tokenise", ours.median, "1/s", "higher", "tokenizer-alone", theirs.median, ours.ratio(theirs))
    spent = []
    for way in (segments, alone):
        before = cpu_seconds()
        way()
        spent.append(1e6 * (cpu_seconds() - before) / tokens)
    print_row("prepare", "tokenise-cpu-seconds", spent[0], "s", "lower", "tokenizer-alone", spent[1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both."""
    parser = argparse.ArgumentParser("bench.prepare")
    parser.add_argument("--tokens", type=float, default=1e9, help="tokens to deal")
    parser.add_argument("--here", help="deal in this process", metavar="FOLDER")
    options = parser.parse_args(arguments)
    if options.here:
        deal_here(options.here, int(options.tokens))
        return
    measure_deal(int(options.tokens))
    measure_tokeniser()


if __name__ == "__main__":
    main()
