"""Workers that share a verification make the report that one worker makes, whoever comes last."""

from __future__ import annotations

import json
import os
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kubesae.experiment import canonical_json
from kubesae.ledger import keys, record_list
from kubesae.verify import verify, verify_share
from small_experiment import edit_record
from verified import PILOT_TOKENS, layer_of

if TYPE_CHECKING:
    from kubesae.store import Store
    from kubesae.verify import ShareResult

REPORT = keys.verify_report("all")


def share(store: Store, index: int, of: int) -> ShareResult:
    return verify_share(store, "all", "full", PILOT_TOKENS, index, of)


def written(store: Store) -> dict[str, bytes]:
    """What a verification writes."""
    return {
        key: store.read(key)
        for key in store.list()
        if key.startswith(("verify/", "activations/index", "activations/moments/layer-001.npz"))
    }


def damage(store: Store) -> None:
    store.put(layer_of(store).key, b"x")
    store.delete(layer_of(store, 1).moments)
    edit_record(store, keys.record(1, 0), identity="0" * 64)
    store.delete(keys.record(1, 2))
    store.put(keys.documents(1), b"x")
    store.put(keys.tar(1, 0, 0, "0" * 12), b"orphan")


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_last_of_the_shares_makes_the_report_that_one_worker_makes(
    small: Store, order: tuple[int, ...], *, damaged: bool
) -> None:
    if damaged:
        damage(small)
    alone = verify(small, "all", "full", PILOT_TOKENS)
    expected = written(small)
    assert alone.passed is not damaged
    for key in expected:
        small.delete(key)
    *first, last = [share(small, index, 3) for index in order]
    assert [result.verification for result in first] == [None, None]
    assert last.verification is not None
    assert last.verification.report == alone
    assert written(small) == expected  # no share is left


def test_more_workers_than_parts(small: Store) -> None:
    results = [share(small, index, 9) for index in range(9)]
    assert [result.parts for result in results] == [1] * 6 + [0] * 3
    assert results[-1].verification is not None
    assert results[-1].verification.report.passed


def test_a_share_of_other_records_is_ignored(small: Store) -> None:
    """Left by an earlier run: since then a record of the share was replaced."""
    share(small, 0, 2)
    edit_record(small, keys.record(0, 0), identity="0" * 64)
    assert share(small, 1, 2).verification is None
    assert not small.exists(REPORT)
    last = share(small, 0, 2)
    assert last.verification is not None
    assert [finding.kind for finding in last.findings] == ["forged record"]


def test_a_share_over_a_shorter_list_of_records_is_ignored(small: Store) -> None:
    first = record_list(small)[0]
    data = small.read(first)
    small.delete(first)
    share(small, 0, 2)
    small.put(first, data)
    assert share(small, 1, 2).verification is None


@pytest.mark.parametrize("change", [{"mode": "ledger"}, {"identity": "0" * 64}, {"index": 1}, {"format": 2}])
def test_a_share_of_something_else_is_ignored(small: Store, change: dict[str, object]) -> None:
    share(small, 0, 2)
    key = keys.verify_share("all", 0, 2)
    small.put(key, canonical_json(json.loads(small.read(key)) | change))
    assert share(small, 1, 2).verification is None


def test_a_share_that_is_no_json_is_ignored(small: Store) -> None:
    share(small, 0, 2)
    small.put(keys.verify_share("all", 0, 2), b"{")
    assert share(small, 1, 2).verification is None


def test_a_share_that_the_report_was_made_of_is_not_used_twice(small: Store) -> None:
    """A worker that was killed between the report and the clean-up leaves shares; they must not pass for new ones."""
    share(small, 0, 2)
    left = small.read(keys.verify_share("all", 0, 2))
    assert share(small, 1, 2).verification is not None
    small.put(keys.verify_share("all", 0, 2), left)
    before = (Path(small.url) / REPORT).stat().st_mtime - 60
    os.utime(Path(small.url) / keys.verify_share("all", 0, 2), (before, before))
    small.put(layer_of(small).key, b"x")
    assert share(small, 1, 2).verification is None
    assert share(small, 0, 2).verification is not None


def test_a_worker_deletes_its_own_share_before_it_begins(small: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    share(small, 0, 2)
    monkeypatch.setattr("kubesae.verify.run.Context.of", lambda _: pytest.fail("killed here"))
    with pytest.raises(pytest.fail.Exception):
        share(small, 0, 2)
    assert not small.exists(keys.verify_share("all", 0, 2))
