"""Any number of workers, in any order, killed after any unit and started again, leave the bytes of one."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubesae.prepare import prepare, prepare_share
from kubesae.prepare.segments import SegmentMaker
from kubesae.store import open_store
from preparing import rows_experiment, some_units, tokens_of, write_units

if TYPE_CHECKING:
    from kubesae.prepare.segments import Segment

Run = tuple[int, int | None]
"""a worker, and the unit after which it is killed"""


class _KilledError(Exception):
    pass


def die_after(units: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the worker die once it has tokenised so many units."""
    make, left = SegmentMaker.make, iter(range(units)) if units is not None else None

    def counted(maker: SegmentMaker, unit: int) -> Segment:
        if left is not None and next(left, None) is None:
            raise _KilledError
        return make(maker, unit)

    monkeypatch.setattr(SegmentMaker, "make", counted)


@st.composite
def schedules(draw: st.DrawFn) -> tuple[int, list[Run]]:
    of = draw(st.integers(1, 4))
    killed = st.tuples(st.integers(0, of - 1), st.integers(0, 2))
    whole = st.permutations(range(of)).map(lambda order: [(index, None) for index in order])
    return of, [*draw(st.lists(killed, max_size=5)), *draw(whole)]


@given(
    st.lists(st.integers(1, 4), min_size=3, max_size=6),
    st.floats(0.2, 0.9),
    st.sampled_from(["kept", "dropped"]),
    schedules(),
)
@settings(max_examples=12)
def test_the_bytes_are_those_of_one_worker(
    units: list[int], share: float, repeats: str, schedule: tuple[int, list[Run]]
) -> None:
    of, runs = schedule
    texts = some_units(units)
    texts = [[*unit, texts[0][0], unit[0]] for unit in texts]  # some came before
    tokens = max(3, int(share * 60 * sum(units)))
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_units(Path(folder) / "inputs", texts)
        several, alone = open_store(f"{folder}/several"), open_store(f"{folder}/alone")
        experiment = rows_experiment(inputs, several.url, tokens, corpus_dedup=repeats == "dropped")
        for index, units_until_death in runs:
            with pytest.MonkeyPatch.context() as monkeypatch, suppress(_KilledError):
                die_after(units_until_death, monkeypatch)
                prepare_share(experiment, several, index, of)
        prepare(experiment, alone)
        assert tokens_of(several) == tokens_of(alone)
