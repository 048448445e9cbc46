"""Rankings of planted traces: right against wrong answers, on halves that do not know of each other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from kubesae.experiment import sha256_hex
from kubesae.features import CodesBuilder, CodesFile
from kubesae.reason.falsify import verdicts
from kubesae.reason.rank import rank
from kubesae.reason.traces import TRACES, Traces, TracesInfo, TraceSource
from kubesae.store import open_store

FEATURES, TOKENS, TRACE_COUNT = 6, 20, 24
RIGHT, WRONG, CHANCE = 0, 1, 2


@pytest.fixture
def planted(tmp_path):
    """Every second trace is right. RIGHT and WRONG are active in these and the others, CHANCE on one half alone."""
    generator = np.random.default_rng(0)
    rows, dense = [], np.zeros((TRACE_COUNT * TOKENS, FEATURES), np.float32)
    for number in range(TRACE_COUNT):
        right, half, first = number % 2 == 0, number // 2 % 2, number * TOKENS
        here = slice(first, first + TOKENS)
        dense[here, RIGHT] = right * generator.uniform(1, 3, TOKENS)
        dense[here, WRONG] = (not right) * generator.uniform(1, 2, TOKENS)
        dense[here, CHANCE] = (right and half == 0) * 9
        dense[here, 3] = generator.uniform(0, 1, TOKENS)
        row = {"problem": str(number), "half": half, "correct": right, "ended": True, "first_row": first}
        rows.append(row | {"prompt": [5], "tokens": [5] * TOKENS, "flags": [0] * TOKENS})
    builder = CodesBuilder(0, len(dense), FEATURES)
    row_N, feature_N = np.nonzero(dense)
    builder.add(np.arange(len(dense)), row_N, feature_N, dense[row_N, feature_N])
    codes, store = builder.finish(), open_store(str(tmp_path))
    data = codes.to_bytes()
    store.put("codes", data)
    file = CodesFile(key="codes", first_row=0, rows=len(dense), entries=len(row_N), sha256=sha256_hex(data))
    names = TraceSource.model_fields
    texts = dict.fromkeys(("identity", "model", "dtype", "sae", "sae_sha256", "problems_sha256", "instruction"), "x")
    numbers = {name: 1 for name in names if name in {"layer", "limit", "batch", "most", "temperature", "seed"}}
    source = TraceSource(**texts, **numbers, chat=False, generated=True)
    info = TracesInfo(source=source, features=FEATURES, rows=len(dense), traces_sha256="x", codes=(file,))
    return Traces(info, pa.Table.from_pylist(rows, TRACES)), store


def test_right_against_wrong(planted):
    traces, store = planted
    orders = rank(traces, store, None, lambda text: np.frombuffer(text.encode(), np.uint8).astype(np.uint32), 64, 3)
    assert [bool(order.missing) for order in orders.orders] == [True, True, False]
    order = orders.orders[2]
    assert set(order.ranked) == {RIGHT, WRONG, CHANCE}
    assert order.score_F[RIGHT] > 0 > order.score_F[WRONG]
    assert (order.held_out.texts_a, order.held_out.texts_b) == (6, 6)
    assert (order.held_out.auc_F[RIGHT], order.held_out.auc_F[WRONG], order.held_out.auc_F[CHANCE]) == (1, 0, 0.5)
    rankings, table = verdicts(orders, {}, {}, {RIGHT: "token 'so'"})
    by_feature = {one.feature: one for one in rankings[2].top}
    assert by_feature[RIGHT].refuted_by == ("injection not tested", "paraphrases not tested")
    assert by_feature[WRONG].refuted_by == by_feature[RIGHT].refuted_by  # in its own direction
    assert any("held-out d 0.00" in reason for reason in by_feature[CHANCE].refuted_by)
    assert by_feature[RIGHT].label == "token 'so'"
    assert {row["feature"] for row in table.to_pylist()} == {RIGHT, WRONG, CHANCE, 3}
