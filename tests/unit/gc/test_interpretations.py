"""gc removes what an interpretation that is whole does not need."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from interpreting import SETTINGS, work
from kubesae.cli.main import group
from kubesae.errors import StoreError
from kubesae.gc import collect_garbage, find_leftovers
from kubesae.interpret import interpret_share
from kubesae.ledger import keys
from kubesae.store import Store, open_store
from small_experiment import write_small
from small_sae import write_sae

HOUR = timedelta(hours=1)
MORE = SETTINGS.model_copy(update={"top_k": 9})
CODES = keys.interpretation_code("small", 0, "0" * 12)


@pytest.fixture
def litter(tmp_path: Path) -> Store:
    """Units of settings that nobody merged, and codes of another machine."""
    store = open_store(str(tmp_path))
    write_small(store)
    write_sae(store)
    assert interpret_share(store, store, None, MORE, 0, 2) is None
    store.put(CODES, b"other bits")
    return store


def age(store: Store) -> None:
    for path in Path(store.url).rglob("*"):
        os.utime(path, (path.stat().st_mtime - 7200,) * 2)


def test_what_a_whole_interpretation_does_not_need_goes(litter: Store) -> None:
    assert work(litter.url, litter.url, 0, 1)
    wanted = set(litter.list()) - {CODES} - set(litter.list(keys.interpretation_units("small")))
    assert find_leftovers(litter, HOUR).objects == {}  # they are young
    age(litter)
    shown = CliRunner().invoke(group, ["gc", "--data", litter.url, "--dry-run"], catch_exceptions=False).output
    assert "Would remove 4 objects and 0 open uploads" not in shown
    shown = CliRunner().invoke(group, ["gc", "--data", litter.url, "--grace", "1h", "--dry-run"]).output
    assert f"{CODES}: 10 bytes" in shown
    assert "Would remove 4 objects and 0 open uploads" in shown
    collect_garbage(litter, find_leftovers(litter, HOUR))
    assert set(litter.list()) == wanted
    assert work(litter.url, litter.url, 0, 1)


def test_one_that_is_interpreted_again_now_is_left_alone(litter: Store) -> None:
    assert work(litter.url, litter.url, 0, 1)
    age(litter)
    unit = next(iter(litter.list(keys.interpretation_units("small"))))
    litter.put(unit, litter.read(unit))
    assert find_leftovers(litter, HOUR).objects == {}


def test_units_go_before_the_codes_that_they_name(litter: Store) -> None:
    assert work(litter.url, litter.url, 0, 1)
    age(litter)
    found = ["/units/" in key for key in find_leftovers(litter, HOUR).objects]
    assert found == sorted(found, reverse=True)
    assert {True, False} == set(found)


def test_units_whose_codes_are_gone_are_encoded_again(litter: Store) -> None:
    for key in litter.list(keys.interpretation_codes("small")):
        litter.delete(key)
    with pytest.raises(StoreError, match=r"codes of 3 units are gone .* Start again"):
        interpret_share(litter, litter, None, MORE, 0, 1)
    assert interpret_share(litter, litter, None, MORE, 0, 1) is not None


def test_without_an_interpretation_all_stays(litter: Store) -> None:
    age(litter)
    assert find_leftovers(litter, HOUR).objects == {}
