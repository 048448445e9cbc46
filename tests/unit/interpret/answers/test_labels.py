"""Labels of planted features, whose meaning is known: exactly that label, with the share of rows that it says."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from kubesae.features import Interpretation, Source, Stored
from kubesae.features.answers import LABELS, LOGITS
from kubesae.interpret.answers.labels import Runs, labels_table
from kubesae.interpret.kept import by_hash
from kubesae.interpret.positions import BINS, bins
from kubesae.ledger import Plan

CONTEXT, CONTEXTS, SHARDS = 64, 41, 2
ROWS = CONTEXT * CONTEXTS * SHARDS
WORDS = 30
THE, OF, CAT, DOG, LINE, NEXT = range(2, 8)
SPECIAL = 0
NAMES = {SPECIAL: "<s>", THE: " the", OF: " of", CAT: " cat", DOG: " dog", LINE: "\n", NEXT: " next"}


class Words:
    """A vocabulary of NAMES, and a number for every other token."""

    def text(self, ids):
        return "".join(NAMES.get(int(i), f" w{i}") for i in ids)


@pytest.fixture(scope="module")
def ids():
    """Random text in which ` the` comes a third of the time after ` of`, and ` cat` often before ` next`."""
    generator = np.random.default_rng(0)
    ids = generator.integers(8, WORDS, ROWS)
    for token, share in ((CAT, 0.1), (DOG, 0.1), (LINE, 0.05), (THE, 0.05), (NEXT, 0.05)):
        ids[generator.random(ROWS) < share] = token
    pairs = np.flatnonzero(generator.random(ROWS - 1) < 0.03)
    ids[pairs], ids[pairs + 1] = OF, THE
    ids[::CONTEXT] = SPECIAL
    return ids


@pytest.fixture(scope="module")
def before(ids):
    return np.concatenate([[-1], ids[:-1]])


@pytest.fixture(scope="module")
def after(ids):
    return np.concatenate([ids[1:], [-1]])


def stored(ids, features, samples=20):
    """An interpretation of features that are active on the given rows, each as much as its place in the list says."""
    place_R = np.arange(ROWS) % CONTEXT
    rows, counts, positions = {"examples": [], "samples": []}, [], []
    for number, planted in enumerate(features):
        active = np.asarray(planted, np.int64)
        active = active[place_R[active] > 0]
        counts.append(len(active))
        positions.append(np.bincount(bins(place_R[active]), minlength=BINS))
        for name, chosen in (("examples", active[:20]), ("samples", active[np.argsort(by_hash(active))][:samples])):
            for row in chosen.tolist():
                first = row - row % CONTEXT
                rows[name].append(
                    {
                        "feature": number,
                        "row": row,
                        "token": int(ids[row]),
                        "before": ids[max(first, row - 4) : row].tolist(),
                        "after": ids[row + 1 : min(first + CONTEXT, row + 5)].tolist(),
                        "kind": "random",
                    }
                )
    for row in rows["samples"][:30]:  # which are not looked at
        rows["samples"].append(row | {"kind": "decile", "token": 1, "before": [1], "after": [1]})
    statistics = pa.table(
        {
            "feature": np.arange(len(features), dtype=np.int32),
            "count": np.array(counts),
            "frequency": np.array(counts) / ROWS,
            "positions": pa.array([row.tolist() for row in positions], pa.list_(pa.int64())),
        }
    )
    source = Source(identity="", sae="", sae_sha256="", layer=0, rows=ROWS, top_k=20, samples=20, context_tokens=4)
    info = Interpretation(
        source=source,
        features=len(features),
        rows=ROWS,
        flagged_rows=0,
        statistics_sha256="",
        examples_sha256="",
        samples_sha256="",
        codes=(),
    )
    lists = {"before": pa.list_(pa.uint32()), "after": pa.list_(pa.uint32())}
    schema = pa.schema({"feature": pa.int32(), "row": pa.int64(), "token": pa.uint32(), **lists, "kind": pa.string()})
    tables = {name: pa.Table.from_pylist(found, schema) for name, found in rows.items()}
    return Stored(info, statistics, tables["examples"], tables["samples"])


PLAN = Plan(tokens=ROWS, num_shards=SHARDS, context=CONTEXT, contexts_per_part=8, contexts_per_block=4)


def labels(ids, features, high=None, samples=20):
    logits = LOGITS.empty_table()
    if high is not None:
        empty = [[] for _ in features]
        columns = {"feature": range(len(features)), "high_tokens": high, "high_values": high, "low_tokens": empty}
        logits = pa.table(columns | {"low_values": empty}).cast(LOGITS)
    table = labels_table(stored(ids, features, samples), logits, PLAN, Words(), (SPECIAL,))
    assert table.schema == LABELS
    return table.to_pylist()


def the(row):
    return row["kind"], row["label"], row["purity"]


def test_a_planted_token(ids):
    (found,) = labels(ids, [np.flatnonzero(ids == CAT)])
    assert the(found) == ("token", "token ' cat'", 1.0)
    assert (found["token"], found["single_token"], found["positional"], found["dense"]) == (CAT, True, False, False)


def test_a_planted_bigram_is_none_of_its_token(ids, before):
    alone, pair = labels(ids, [np.flatnonzero(ids == THE), np.flatnonzero((ids == THE) & (before == OF))])
    assert alone["kind"] == "token"
    assert the(pair) == ("bigram", "bigram ' of the'", 1.0)
    assert pair["single_token"]


@pytest.mark.parametrize(("first", "last", "words"), [(1, 2, "position 1-2"), (3, 6, "position 3-6")])
def test_a_planted_position(ids, first, last, words):
    place = np.arange(ROWS) % CONTEXT
    (found,) = labels(ids, [np.flatnonzero((place >= first) & (place <= last))])
    assert the(found) == ("position", words, 1.0)
    assert (found["positional"], found["single_token"]) == (True, False)


def test_the_last_places_of_a_context_are_no_position_where_most_rows_are_there(ids):
    (found,) = labels(ids, [np.flatnonzero(np.arange(ROWS) % CONTEXT >= 31)])
    assert not found["positional"]
    assert found["kind"] == "mixed"
    (found,) = labels(ids, [np.flatnonzero(np.arange(ROWS) % CONTEXT == 63)])
    assert the(found) == ("position", "position 63", 1.0)


def test_a_few_active_rows_are_no_position(ids):
    at = np.flatnonzero(np.arange(ROWS) % CONTEXT == 1)
    few, enough = labels(ids, [at[:19], at[:20]])
    assert (few["positional"], enough["positional"]) == (False, True)


def test_a_planted_feature_that_writes_a_token(ids, after):
    active = np.flatnonzero(np.isin(after, [NEXT, DOG]) & (np.arange(ROWS) % CONTEXT < CONTEXT - 1))
    found, without = labels(ids, [active, active], high=[[NEXT, DOG, 29], [29, 28]])
    assert the(found) == ("logit", "writes ' dog'", 1.0)
    assert without["kind"] == "mixed"
    (unknown,) = labels(ids, [active])
    assert unknown["kind"] == "mixed"


def test_what_is_half_on_a_token_says_so(ids):
    cats, others = np.flatnonzero(ids == CAT), np.flatnonzero(ids > 8)
    found, less = labels(ids, [[*cats[:12], *others[:8]], [*cats[:9], *others[:11]]])
    assert the(found) == ("token", "token ' cat'", pytest.approx(0.6))
    assert not found["single_token"]
    assert (less["kind"], less["purity"]) == ("mixed", pytest.approx(0.45))
    assert less["label"].startswith("mixed: ' cat', ' w")
    assert less["label"].count("'") == 6


def test_a_bigram_that_is_not_pure_leaves_its_token_the_label(ids, before):
    pairs, others = np.flatnonzero((ids == THE) & (before == OF)), np.flatnonzero(ids > 8)
    alone = np.flatnonzero((ids == THE) & (before != OF))
    (found,) = labels(ids, [[*pairs[:9], *alone[:1], *others[:10]]])
    assert the(found) == ("token", "token ' the'", 0.5)


def test_a_pair_of_another_token_is_no_bigram_of_the_first(ids, before):
    cats, pairs = np.flatnonzero(ids == CAT), np.flatnonzero((ids == THE) & (before == OF))
    (found,) = labels(ids, [[*cats[:11], *pairs[:9]]])
    assert the(found) == ("token", "token ' cat'", pytest.approx(0.55))


def test_a_token_at_one_place_is_named_by_the_token(ids):
    at = np.flatnonzero((ids == CAT) & (np.arange(ROWS) % CONTEXT <= 2))
    repeated = np.resize(at, 20)
    (found,) = labels(ids, [np.unique(repeated)], samples=5)
    assert found["kind"] == "token"


def test_special_tokens_make_no_bigram(ids):
    changed = ids.copy()
    changed[1::CONTEXT] = CAT
    (found,) = labels(changed, [np.arange(1, ROWS, CONTEXT)])
    assert the(found) == ("token", "token ' cat'", 1.0)
    assert found["positional"]


def test_dead_and_dense(ids):
    dead, dense = labels(ids, [[], np.arange(ROWS)])
    assert the(dead) == ("dead", "dead", 0.0)
    assert dead["token"] == -1
    assert not any(dead[flag] for flag in ("dense", "single_token", "positional"))
    assert dense["dense"]


def test_white_space_is_shown(ids):
    assert labels(ids, [np.flatnonzero(ids == LINE)])[0]["label"] == "token '⏎'"


def test_runs_are_by_count_then_value():
    runs = Runs.of(np.array([3, 1, 1, 1, 3, 3, 1]), np.array([9, 4, 2, 2, 8, -1, 4]))
    assert runs.feature.tolist() == [1, 1, 3, 3]
    assert runs.value.tolist() == [2, 4, 8, 9]
    assert runs.count.tolist() == [2, 2, 1, 1]
    assert [part.tolist() for part in runs.best(5)] == [[-1, 2, -1, 8, -1], [0, 2, 0, 1, 0]]
    assert (runs.named(3, 1), runs.named(0, 3)) == ([8], [])
