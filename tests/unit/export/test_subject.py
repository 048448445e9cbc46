"""What is exported: which features, and from what."""

import hypothesis
import hypothesis.strategies as st
import pytest

from exported import dense, subject
from kubesae.errors import ConfigError
from kubesae.export import Subject, parse_features
from kubesae.ledger import keys
from kubesae.store import open_store
from small_experiment import write_small
from small_sae import D_SAE, DEAD, write_sae


@hypothesis.given(runs=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), min_size=1))
@hypothesis.settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_a_list_is_what_its_runs_hold(runs):
    text = ",".join(f"{first}-{first + more}" if more else str(first) for first, more in runs)
    wanted = sorted({feature for first, more in runs for feature in range(first, first + more + 1)})
    assert parse_features(text, 40).tolist() == wanted


@pytest.mark.parametrize("text", ["", "a", "1,,2", "5-3", "24", "20-24", "-1", "1.5"])
def test_what_is_no_list_is_refused(text):
    with pytest.raises(ConfigError, match="Give a list such as 0,5,10-20"):
        parse_features(text, D_SAE)


def test_a_subject_knows_what_it_is_made_from(small_store):
    opened = subject(small_store, "3,5-7")
    assert opened.features.tolist() == [3, 5, 6, 7]
    assert DEAD not in opened.active.tolist()
    assert opened.active.tolist() == [f for f in (3, 5, 6, 7) if dense(opened)[:, f].any()]
    made_from = opened.provenance()
    assert made_from["features"] == [3, 5, 6, 7]
    assert made_from["sae_sha256"] == opened.named.sha256
    assert all(made_from.values())
    assert opened.missing() == []


def test_what_is_not_there_is_said_with_what_to_do(tmp_path):
    store = open_store(str(tmp_path))
    write_small(store)
    write_sae(store)
    opened = Subject.open(store, store, None)
    assert opened.provenance()["interpretation_sha256"] is None
    with pytest.raises(ConfigError, match="Run `kubesae interpret` first"):
        _ = opened.stored
    with pytest.raises(ConfigError, match="Run `kubesae evaluate --sae-name small` first"):
        _ = opened.evaluation


def test_an_evaluation_of_other_weights_does_not_count(tmp_path):
    store = open_store(str(tmp_path))
    write_small(store)
    write_sae(store)
    store.put(keys.evaluation("small"), b'{"format": 2, "sae_sha256": "other"}')
    with pytest.raises(ConfigError, match="trained again since"):
        _ = Subject.open(store, store, None).evaluation
