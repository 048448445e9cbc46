"""Hundreds of seeded damages: verify names every one and invents none, and repair mends all of them to equal bytes.

Many are done to one store at once, each to parts of its own, and each is looked for by itself. The model is a real one,
tiny and loaded once: repair runs it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from damages import LOST, PARTS, Damaged, cut, damage_tokens, derived_files, token_files
from kubesae.collect import plan_work, repair
from kubesae.ledger import Damage, Plan, keys, parse_record, record_list, require_identity
from kubesae.prepare import restore_tokens
from kubesae.store import Store, open_store
from kubesae.verify import examine
from tiny_collected import PILOT_TOKENS, collect_all, copy_of, engine_kept, tiny_experiment, tree, write_inputs
from tiny_models import VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kubesae.experiment import Experiment
    from kubesae.ledger import Finding

pytestmark = pytest.mark.fault

QUICK_ROUNDS, ROUNDS = 1, 6  # of every damage of a part once each
AT_ONCE = 10
PLACED = {keys.layer_urls(1), keys.layer_urls(2), keys.verify_report("all")}  # they name the prefix, or list orphans
DONE: Counter[str] = Counter()
KINDS: set[Damage] = set()


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiment]:
    """Give a collected and verified experiment, whose store is copied and never changed; its model stays loaded."""
    folder = tmp_path_factory.mktemp("damages")
    write_inputs(folder)
    experiment = tiny_experiment(folder)
    collect_all(experiment)
    with engine_kept():
        yield experiment


@pytest.fixture
def damaged(clean: Experiment, tmp_path: Path) -> Damaged:
    """Give a copy to damage."""
    _, store = copy_of(clean, tmp_path / "data")
    return Damaged(store, Plan.of(require_identity(store)), VOCABULARY)


def find(store: Store, expected: list[tuple[Damage, str]], parts: set[tuple[int, int]]) -> tuple[Finding, ...]:
    """Verify; everything expected must be there, and nothing that is not of `parts` or expected."""
    findings = examine(store, "all", "full", PILOT_TOKENS, workers=2).findings
    found = {(finding.kind, finding.key) for finding in findings}
    assert set(expected) <= found, set(expected) - found
    invented = [f for f in findings if (f.shard, f.part) not in parts and (f.kind, f.key) not in expected]
    assert not invented, invented
    assert parts <= {(finding.shard, finding.part) for finding in findings}
    KINDS.update(kind for kind, _ in expected)
    return findings


def mend(clean: Experiment, store: Store) -> None:
    """Repair until nothing is found, and compare every object with what it was."""
    experiment = clean.model_copy(update={"data": store.url})
    for _ in range(3):
        findings = examine(store, "all", "full", PILOT_TOKENS).findings
        work = plan_work(store, findings)
        if not work.count:
            break
        repair(experiment, store, work, lambda files: restore_tokens(experiment, store, files))
    assert findings == ()
    compare(open_store(clean.data), store)


def compare(clean: Store, store: Store) -> None:
    """Every object is what it was; new ones are quarantined records, and tars and moments that no record names."""
    here, there = ({key: data for key, data in tree(s).items() if key not in PLACED} for s in (store, clean))
    assert here.items() >= there.items(), [key for key in there if here.get(key) != there[key]]
    new = here.keys() - there.keys()
    named = {
        name
        for key in record_list(store)
        for layer in parse_record(here[key], key).layers
        for name in (layer.key, layer.moments)
    }
    assert all(key.startswith(keys.QUARANTINE) or (keys.parse_content(key) and key not in named) for key in new), new


def test_a_clean_store_has_no_damage_and_is_left_alone(clean: Experiment, damaged: Damaged) -> None:
    for workers in (1, 2):
        assert find(damaged.store, [], set()) == ()
        assert examine(damaged.store, "all", "full", PILOT_TOKENS, workers=workers).report.orphans == ()
    assert plan_work(damaged.store, ()).count == 0
    compare(open_store(clean.data), damaged.store)


def rounds() -> list[object]:
    """Each damage of a part once a round, ten to a store."""
    names = list(PARTS)
    cases = [(r, names[at : at + AT_ONCE]) for r in range(ROUNDS) for at in range(0, len(names), AT_ONCE)]
    return [
        pytest.param(r, chosen, id=f"{r}-{chosen[0]}", marks=[] if r < QUICK_ROUNDS else [pytest.mark.slow])
        for r, chosen in cases
    ]


@pytest.mark.parametrize(("number", "names"), rounds())
def test_damaged_parts_are_named_and_mended(clean: Experiment, damaged: Damaged, number: int, names: list[str]) -> None:
    generator = np.random.Generator(np.random.PCG64([number, list(PARTS).index(names[0])]))
    places = [(part.shard, part.index) for part in damaged.plan.all_parts()]
    order = [places[i] for i in generator.permutation(len(places))]
    expected, parts = [], set()
    for name in names:
        mine = [order.pop(), order.pop()]
        found = PARTS[name](damaged, generator, mine)
        expected += found
        parts.update({place for _, key in found if (place := keys.parse_record(key) or keys.parse_content(key))})
        if not found:
            parts.add(mine[0])
        DONE[name] += 1
    find(damaged.store, expected, parts)
    mend(clean, damaged.store)


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 4))])
def test_damaged_tokens_are_named_and_mended(clean: Experiment, damaged: Damaged, number: int) -> None:
    """One file of the tokens after the other, with lost bytes of parts beside it, which are seen all the same."""
    generator = np.random.Generator(np.random.PCG64([number, 1000]))
    places = [(part.shard, part.index) for part in damaged.plan.all_parts()]
    for i, key in enumerate(token_files(damaged.plan)):
        name, place = LOST[i % len(LOST)], places[int(generator.integers(len(places)))]
        expected = [*damage_tokens(damaged, generator, key), *PARTS[name](damaged, generator, [place])]
        DONE.update([key, name])
        find(damaged.store, expected, {place})
        mend(clean, damaged.store)


@pytest.mark.parametrize("number", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 4))])
def test_a_damaged_index_is_named_and_mended(clean: Experiment, damaged: Damaged, number: int) -> None:
    generator = np.random.Generator(np.random.PCG64([number, 2000]))
    for key, kind in derived_files(clean.layers):
        damaged.store.put(key, cut(generator, damaged.store.read(key)))
        DONE[key] += 1
        find(damaged.store, [(kind, key)], set())
        mend(clean, damaged.store)
        assert damaged.store.exists(key)


def test_all_of_it_was_done(request: pytest.FixtureRequest) -> None:
    """Every kind of damage that verify knows was made, and as many as were promised."""
    if "-k" in request.config.invocation_params.args:
        pytest.skip("a choice of tests was run")
    assert set(Damage) == KINDS
    whole = "not slow" not in request.config.option.markexpr
    assert sum(DONE.values()) >= (200 if whole else 40), DONE
