"""How often a training may start from the same checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kubesae.launch.starts import ALLOWED, Starts
from kubesae.ledger import keys
from kubesae.store import Store, open_store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def starts(store: Store, who: str = "exp-train-master-0") -> Starts:
    return Starts(store, ["a", "b"], who)


def checkpoint(store: Store, sae: str, step: int) -> None:
    store.put(f"{keys.checkpoint_folder(sae, step)}trainer.json", b"{}")


def test_the_third_start_without_progress_is_the_last(store: Store) -> None:
    went_on = []
    for _ in range(ALLOWED):
        start = starts(store)
        assert start.begin()
        went_on.append(start.may_go_on())
    assert went_on == [True, True, False]
    assert store.list("starts/") == {}


def test_pods_that_vanish_are_counted_when_the_next_one_begins(store: Store) -> None:
    assert all(starts(store).begin() for _ in range(ALLOWED))
    refused = starts(store)
    assert not refused.begin()
    assert not refused.may_go_on()
    assert starts(store).begin(), "who starts it again wants it to be tried again"


def test_a_new_checkpoint_of_any_sae_begins_the_count_anew(store: Store) -> None:
    for step in (5, 9):
        for _ in range(ALLOWED - 1):
            assert starts(store).begin()
        checkpoint(store, "b", step)
    last = starts(store)
    assert last.begin()
    checkpoint(store, "a", 1)
    assert last.may_go_on()
    assert store.list("starts/") == {}


def test_a_half_written_checkpoint_is_no_progress(store: Store) -> None:
    for _ in range(ALLOWED):
        assert starts(store).begin()
        store.put(f"{keys.checkpoint_folder('a', 7)}trainer.safetensors", b"half")
    assert not starts(store).begin()


def test_a_stopped_start_is_not_counted(store: Store) -> None:
    for _ in range(2 * ALLOWED):
        start = starts(store)
        assert start.begin()
        start.take_back()


def test_every_pod_counts_its_own(store: Store) -> None:
    for who in ("exp-train-worker-0", "exp-train-worker-1", "exp-train-worker-10"):
        assert all(starts(store, who).begin() for _ in range(ALLOWED))
    starts(store, "exp-train-worker-1").forget()
    assert len(store.list("starts/")) == 2 * ALLOWED
