"""An interpretation with text of this repository, written without a model: for tests of the page and its bench.

Each feature is active on one token of a small tokenizer, most on some of its rows, and a little on other rows. So
labels can be checked by eye, contexts are real text, and a feature has about the bytes that a real one has.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from kubesae.browse import PageServer
from kubesae.corpus import TokensManifest
from kubesae.experiment import canonical_json, sha256_hex
from kubesae.features import SCHEMAS, Source, Stored, write_answers, write_stored
from kubesae.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.store import Store
    from s3_server import S3Server

ROOT = Path(__file__).parents[2]
SAE, LAYER, RUN = "layer-004-topk-64", 4, "paged"
HOSTILE = '<img src=x onerror="alert(1)">'
BROKEN = "🙂"  # several tokens, none of which is a character
WIDTH = 16
CORPORA = {"words": "docs/*.md", "code": "jobs/kubesae/*/*.py"}
CONTEXT = 128
FILES = 10
_VOCABULARY = 1500
_TOP, _RANDOM, _PER_DECILE, _RELATED = 20, 20, 2, 20
_SHA256 = "ab" * 32


@dataclass
class Text:
    """Tokens of the corpora, document after document."""

    tokenizer: Tokenizer
    token_N: np.ndarray
    document_N: np.ndarray
    offset_N: np.ndarray
    documents: list[tuple[str, str]]


def write_paged(store: Store, features: int = 64, *, answers: bool = True, head: bool = True) -> Stored:
    """Write tokens' manifest, tokenizer, SAE files, interpretation and answers to `store`; feature 3 is dead."""
    text = read_text()
    _write_about(store, text)
    stored = _write_interpretation(store, text, features)
    if answers:
        _write_answers(store, text, stored, head=head)
    return stored


def read_text() -> Text:
    """Tokenise documents of this repository by a byte-level tokenizer that is trained on them."""
    found = [(name, path) for name, pattern in CORPORA.items() for path in sorted(ROOT.glob(pattern))[:FILES]]
    texts = [path.read_text(encoding="utf-8") for _, path in found]
    texts[0] = f"{texts[0][:3000]}\n{HOSTILE} {BROKEN}\n\t{HOSTILE} {BROKEN}\n" * 30
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=_VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts[1:], trainer)
    tokenizer.add_tokens([HOSTILE])
    ids = [np.array(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    return Text(
        tokenizer,
        np.concatenate(ids),
        np.repeat(np.arange(len(ids)), [len(each) for each in ids]),
        np.concatenate([np.arange(len(each)) for each in ids]),
        [(name, str(path.relative_to(ROOT))) for name, path in found],
    )


def _write_about(store: Store, text: Text) -> None:
    """Write what lies around an interpretation: tokenizer, manifest, the SAE's metadata, metrics and evaluation."""
    definition = text.tokenizer.to_str().encode()
    store.put(keys.TOKENIZER, definition)
    corpora = [{"name": name, "source": name} for name in CORPORA]
    request = {"model": "none", "model_revision": None, "corpora": corpora, "tokens": len(text.token_N)}
    request |= {"num_shards": 1, "context": CONTEXT, "bos": False, "separator": False, "seed": 0}
    tokenizer = {"sha256": sha256_hex(definition), "size": text.tokenizer.get_vocab_size(), "bos": None, "eos": None}
    used = [
        {"name": name, "revision": _SHA256, "pool_contexts": 1, "contexts": 1, "documents": 9, "tokens": 9999}
        for name in CORPORA
    ]
    shard = {"tokens": len(text.token_N), "sha256": _SHA256, "documents_sha256": _SHA256}
    manifest = TokensManifest.model_validate(
        {"request": request, "tokenizer": tokenizer | {"special": []}, "corpora": used, "shards": [shard]}
    )
    store.put(keys.TOKENS_MANIFEST, manifest.to_json())
    experiment = {"name": RUN, "model": "none", "corpora": corpora, "layers": [LAYER], "tokens": len(text.token_N)}
    store.put(keys.run(RUN, "0" * 12), canonical_json(experiment))
    store.put(keys.best(SAE), canonical_json({"checkpoint": "checkpoints/step-00000200"}))
    metadata = {
        "config": {"architecture": "topk", "d_model": 16, "d_sae": 64, "k": 8},
        "training": {"lr": 0.001, "epochs": 3, "prefixes": [8, 16]},
        "metrics": {"fvu": 0.21, "val_loss": 0.19, "l0": 8.0},
    }
    store.put(f"{keys.checkpoint_folder(SAE, 200)}{keys.SAE_METADATA}", canonical_json(metadata))
    steps = [{"kind": "step", "step": i, "epoch": 1, "loss": 1 / i, "l0": 8 + 1 / i} for i in range(1, 201)]
    epochs = [
        {"kind": "epoch", "step": 100 * i, "epoch": i, "val_loss": 0.4 / i, "l0": 8.0, "fvu": 0.3} for i in (1, 2)
    ]
    store.put(keys.metrics(SAE, 200), b"".join(canonical_json(line) + b"\n" for line in [*steps, *epochs]))
    evaluation: dict[str, Any] = {
        "sae_sha256": _SHA256,
        "fvu": 0.2,
        "cross_entropy": {"recovered_zero": 0.93, "clean": 3.1, "spliced": 3.2},
    }
    evaluation["l0_rows"] = {"histogram": {"edges": [6, 7, 8, 9, 10], "counts": [3, 80, 100, 7]}}
    store.put(keys.evaluation(SAE), canonical_json(evaluation))


def _active(text: Text, features: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return rows and activations of each feature: its token's rows, and a fiftieth as many others."""
    random = np.random.default_rng(0)
    special = [text.tokenizer.token_to_id(HOSTILE), *text.tokenizer.encode(BROKEN).ids[-1:]]
    common = np.bincount(text.token_N).argsort()[::-1]
    wanted = [*special, *(token for token in common.tolist() if token not in special)]
    found = []
    for feature in range(features):
        rows = np.flatnonzero(text.token_N == wanted[feature % len(wanted)])
        others = random.integers(0, len(text.token_N), 5 + len(rows) // 50)
        rows = np.unique(np.concatenate([rows, others]))
        values = (random.gamma(2.0, 1.0 + feature % 7, len(rows)) + 0.05).astype(np.float32)
        found.append((rows, values) if feature != 3 else (rows[:0], values[:0]))
    return found


def _write_interpretation(store: Store, text: Text, features: int) -> Stored:
    active, rows = _active(text, features), len(text.token_N)
    octave_N = np.log2(np.arange(rows) % CONTEXT + 1).astype(np.int64)
    columns: dict[str, list[Any]] = {"feature": list(range(features))}
    for name, measure in _measures(rows).items():
        columns[name] = [measure(values) for _, values in active]
    columns["positions"] = [np.bincount(octave_N[row_N], minlength=16).tolist() for row_N, _ in active]
    examples, samples = [], []
    for feature, (row_N, value_N) in enumerate(active):
        top = np.lexsort((row_N, -value_N))[:_TOP]
        examples += [_shown(text, feature, rank, row_N, value_N, i) for rank, i in enumerate(top.tolist(), 1)]
        samples += _sampled(text, feature, row_N, value_N)
    source = Source(
        identity=_SHA256,
        sae=SAE,
        sae_sha256=_SHA256,
        layer=LAYER,
        rows=rows,
        top_k=_TOP,
        samples=_RANDOM,
        context_tokens=WIDTH,
    )
    tables = {"statistics": pa.table(columns), "examples": _table(examples), "samples": _table(samples)}
    return write_stored(store, source, rows, 17, tables, [])


def _measures(rows: int) -> dict[str, Any]:
    def histogram(values: np.ndarray) -> list[int]:
        bins = (values.view(np.uint32) >> 22).astype(np.int64) - (127 - 16) * 2
        return np.bincount(bins, minlength=64).tolist()

    def over(measure: Any) -> Any:
        return lambda values: float(measure(values)) if len(values) else 0.0

    return {
        "count": len,
        "max": over(np.max),
        "mean": lambda values: float(values.sum()) / rows,
        "mean_active": over(np.mean),
        "mean_square_active": over(lambda values: np.mean(values**2)),
        "std_active": over(np.std),
        "frequency": lambda values: len(values) / rows,
        "histogram": histogram,
    }


def _sampled(text: Text, feature: int, row_N: np.ndarray, value_N: np.ndarray) -> list[dict[str, Any]]:
    order = np.random.default_rng(feature).permutation(len(row_N))
    decile_N = (value_N.argsort().argsort() * 10) // max(len(value_N), 1)
    chosen = [("random", i) for i in order[:_RANDOM].tolist()]
    for decile in range(10):
        of_decile = order[decile_N[order] == decile][:_PER_DECILE]
        chosen += [("decile", i) for i in of_decile.tolist()]
    return [
        _shown(text, feature, rank, row_N, value_N, i) | {"kind": kind, "decile": int(decile_N[i])}
        for rank, (kind, i) in enumerate(chosen, 1)
    ]


def _shown(text: Text, feature: int, rank: int, row_N: np.ndarray, value_N: np.ndarray, i: int) -> dict[str, Any]:
    row = int(row_N[i])
    begin, end = max(0, row - WIDTH), min(len(text.token_N), row + 1 + WIDTH)
    values = np.zeros(end - begin, np.float32)
    here = (row_N >= begin) & (row_N < end)
    values[row_N[here] - begin] = value_N[here]
    corpus, document = text.documents[text.document_N[row]]
    tokens = text.token_N
    return {
        "feature": feature, "rank": rank, "activation": float(value_N[i]), "row": row, "token": int(tokens[row]),
        "corpus": corpus, "document": document, "offset": int(text.offset_N[row]),
        "before": tokens[begin:row].tolist(), "after": tokens[row + 1 : end].tolist(), "activations": values.tolist(),
    }  # fmt: skip


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    tokens, values = pa.list_(pa.uint32()), pa.list_(pa.float32())
    types = {
        "feature": pa.int32(),
        "rank": pa.int32(),
        "activation": pa.float32(),
        "row": pa.int64(),
        "token": pa.uint32(),
    }
    types |= {"corpus": pa.string(), "document": pa.string(), "offset": pa.int64(), "before": tokens, "after": tokens}
    types |= {"activations": values, "kind": pa.string(), "decile": pa.int8()}
    return pa.Table.from_pylist(rows, pa.schema({name: types[name] for name in rows[0]}))


def _write_answers(store: Store, text: Text, stored: Stored, *, head: bool) -> None:
    features, random = range(stored.info.features), np.random.default_rng(1)
    tables = {
        "labels": _labels(text, stored),
        "logits": [_logits(random, feature) for feature in features] if head else [],
        "neighbours": [_related(random, feature, len(features), "neighbours", "cosines") for feature in features],
        "coactivation": [
            _related(random, feature, len(features), "others", "jaccard", "npmi")
            | {"counts": list(range(min(len(features), _RELATED)))}
            for feature in features
        ],
        "populations": _populations(text, len(features)),
    }
    write_answers(
        store,
        SAE,
        stored.info.to_json(),
        {name: pa.Table.from_pylist(rows, SCHEMAS[name]) for name, rows in tables.items()},
        head=_SHA256 if head else "",
        no_head="" if head else "the model's head was not to be had.",
        coactivation_rows=stored.info.rows,
    )


def _labels(text: Text, stored: Stored) -> list[dict[str, Any]]:
    """Return a label of every kind, by turns."""
    first = {row["feature"]: row["token"] for row in stored.examples.to_pylist() if row["rank"] == 1}
    found = []
    for feature, count in enumerate(stored.statistics["count"].to_pylist()):
        token = first.get(feature, -1)
        kind = ("token", "mixed", "bigram", "position")[feature % 4] if count else "dead"
        label = f"token '{text.tokenizer.decode([token])}'" if count else "dead"
        flags = {"dense": False, "single_token": kind == "token", "positional": kind == "position"}
        purity = 0.95 if count else float("nan")
        found.append({"feature": feature, "label": label, "kind": kind, "purity": purity, "token": token} | flags)
    return found


def _logits(random: np.random.Generator, feature: int) -> dict[str, Any]:
    high, low = random.integers(0, _VOCABULARY, (2, _RELATED)).tolist()
    raised, lowered = np.sort(random.random((2, _RELATED)) * 3)[:, ::-1]
    values = {"high_values": raised.tolist(), "low_values": (-lowered).tolist()}
    return {"feature": feature, "high_tokens": high, "low_tokens": low} | values


def _related(random: np.random.Generator, feature: int, features: int, others: str, *numbers: str) -> dict[str, Any]:
    """Return other features of one, with numbers in [0, 1] that fall."""
    found = random.choice(features, min(features, _RELATED), replace=False).tolist()
    values = np.sort(random.random(len(found)))[::-1].tolist()
    return {"feature": feature, others: found} | dict.fromkeys(numbers, values)


def _populations(text: Text, features: int) -> list[dict[str, Any]]:
    corpus_N = np.array([name for name, _ in text.documents])[text.document_N]
    found = []
    for feature, (row_N, value_N) in enumerate(_active(text, features)):
        for corpus in CORPORA:
            own_N = value_N[corpus_N[row_N] == corpus]
            mean = float(own_N.mean()) if len(own_N) else 0.0
            counted = {"rows": int((corpus_N == corpus).sum()), "count": len(own_N), "mean_active": mean}
            found.append({"feature": feature, "population": corpus} | counted)
    return found


@contextmanager
def serving(store: Store, **settings: Any) -> Iterator[PageServer]:
    """Serve the page from this machine, as `kubesae page` does."""
    with PageServer(store, SAE, **settings) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def publish(server: S3Server, folder: Path, sae: str = SAE, *, only: str = "") -> str:
    """Put a store's page into a new bucket, of which anybody may read `interpret/`, and return the page's URL.

    Or of which anybody may read one file of the page, `only`.
    """
    bucket = server.new_bucket().removeprefix("s3://")
    for path in sorted((folder / "interpret").rglob("*")):
        key = f"some/prefix/{path.relative_to(folder)}"
        if path.is_file() and path.suffix in {".html", ".json", ".gz", ".bin"}:
            kind = {"ContentType": "text/html"} if key.endswith(".html") else {}
            server.client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes(), **kind)
    rule = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
    rule["Resource"] = f"arn:aws:s3:::{bucket}/some/prefix/interpret/{f'{sae}/{only}' if only else '*'}"
    policy = json.dumps({"Version": "2012-10-17", "Statement": [rule]})
    server.client.put_bucket_policy(Bucket=bucket, Policy=policy)
    return f"{server.endpoint}/{bucket}/some/prefix/interpret/{sae}/index.html"


def feature_json(store: Store, feature: int) -> dict[str, Any]:
    """Read a feature of the page as another program would: by the index and a range."""
    import gzip
    import zlib

    index = json.loads(gzip.decompress(store.read(keys.page_index(SAE))))[str(LAYER)]
    start, stop = index["offsets"][feature : feature + 2]
    data = store.read(f"{keys.page_features(SAE)}{index['filename']}", start, stop)
    length = int.from_bytes(data[:4], "little")
    assert length == len(data) - 4
    return json.loads(zlib.decompress(data[4:]))
