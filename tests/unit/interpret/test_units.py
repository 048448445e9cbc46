from __future__ import annotations

import pytest

from kubesae.features import Source
from kubesae.interpret.units import cut
from kubesae.ledger import Plan
from kubesae.shards import BlockRef, read_index
from kubesae.store import open_store
from small_experiment import write_small

SOURCE = Source(identity="i", sae="s", sae_sha256="w", layer=4, rows=1003, top_k=6, samples=5, context_tokens=4)


@pytest.fixture
def blocks(tmp_path) -> tuple[list[BlockRef], Plan]:
    store = open_store(str(tmp_path))
    identity = write_small(store)
    return read_index(store, identity, 4), Plan.of(identity)


@pytest.mark.parametrize(
    ("unit_rows", "expected"),
    [(1, [192, 192, 118, 192, 192, 117]), (193, [384, 118, 384, 117]), (1 << 20, [502, 501])],
)
def test_units_are_runs_of_parts_of_one_shard(blocks, unit_rows: int, expected: list[int]) -> None:
    refs, plan = blocks
    units = cut(refs, plan, SOURCE, unit_rows)
    assert [unit.rows for unit in units] == expected
    assert [ref for unit in units for ref in unit.refs] == refs


def test_there_are_never_many_units(blocks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubesae.interpret.units.MOST_UNITS", 2)
    assert [unit.rows for unit in cut(*blocks, SOURCE, 1)] == [502, 501]


@pytest.mark.parametrize("change", [{"identity": "j"}, {"sae_sha256": "x"}, {"top_k": 7}, {"samples": 6}])
def test_a_unit_is_named_by_what_it_is_made_of(blocks, change: dict[str, object]) -> None:
    before, after = (
        {unit.key for unit in cut(*blocks, source, 1)} for source in (SOURCE, SOURCE.model_copy(update=change))
    )
    assert not before & after


def test_other_units_of_the_same_data_have_other_names(blocks) -> None:
    assert not {unit.key for unit in cut(*blocks, SOURCE, 1)} & {unit.key for unit in cut(*blocks, SOURCE, 1 << 20)}


def test_a_part_that_is_not_there_yet_ends_a_unit(blocks) -> None:
    refs, plan = blocks
    units = cut([ref for ref in refs if (ref.shard, ref.part) != (0, 1)], plan, SOURCE, 1 << 20)
    assert [(unit.first_row, unit.rows) for unit in units] == [(0, 192), (384, 118), (502, 501)]


def test_units_stay_when_more_data_comes(blocks) -> None:
    """Rows that are collected later make no unit that is done another one."""
    refs, plan = blocks
    first = cut([ref for ref in refs if ref.shard == 0], plan, SOURCE.model_copy(update={"rows": 502}), 1)
    assert first == cut(refs, plan, SOURCE, 1)[: len(first)]
