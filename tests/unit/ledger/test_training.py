"""The curves of a training, from the segments of its metrics."""

from __future__ import annotations

import pytest

from kubesae.errors import DamagedError
from kubesae.experiment import canonical_json
from kubesae.ledger import keys, read_curves
from kubesae.store import open_store


def line(step, loss, kind="step"):
    name = "val_loss" if kind == "epoch" else "loss"
    return canonical_json({"kind": kind, "step": step, "epoch": 1, name: loss, "l0": 8.0}) + b"\n"


def test_curves_go_over_all_segments_and_the_later_attempt_counts(tmp_path):
    store = open_store(str(tmp_path))
    store.put(keys.metrics("sae", 10), line(5, 0.9) + line(10, 0.8) + line(10, 0.7, "epoch"))
    store.put(keys.metrics("sae", 20), line(10, 0.75) + line(20, 0.5))
    store.put("sae/sae/metrics/note.txt", b"no segment")
    found = read_curves(store, "sae")
    assert [(point.step, point.loss) for point in found["step"]] == [(5, 0.9), (10, 0.75), (20, 0.5)]
    assert [(point.step, point.loss) for point in found["epoch"]] == [(10, 0.7)]


def test_without_a_training_there_are_none(tmp_path):
    assert read_curves(open_store(str(tmp_path)), "sae") == {"step": [], "epoch": []}


@pytest.mark.parametrize(
    "data", [b"{", b'{"kind":"other","step":1,"epoch":1,"loss":1,"l0":1}', b'{"kind":"step"}', b"[1]"]
)
def test_a_segment_of_something_else_is_damage(tmp_path, data):
    store = open_store(str(tmp_path))
    store.put(keys.metrics("sae", 10), data)
    with pytest.raises(DamagedError, match=r"metrics segment|says nothing"):
        read_curves(store, "sae")
