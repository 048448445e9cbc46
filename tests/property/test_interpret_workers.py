"""Any number of workers, in any order, killed at any step and started again, leave the bytes of one."""

from __future__ import annotations

import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interpreting import SETTINGS, work
from interruptions import CrashError, at_call, crash
from kubesae.interpret import interpret, interpret_share
from kubesae.shards import read_block as read
from kubesae.store import open_store
from kubesae.store.local import LocalStore
from small_experiment import write_small
from small_sae import write_sae

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kubesae.store import Store

Run = tuple[int, int | None]
"""a worker, and the write (or removal) at which it is killed"""


@pytest.fixture(scope="module")
def collected() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        write_small(store)
        write_sae(store)
        yield Path(folder)


@pytest.fixture(scope="module")
def alone(collected: Path) -> dict[str, bytes]:
    """What one worker leaves that is not interrupted."""
    with tempfile.TemporaryDirectory() as folder:
        output = with_sae(collected, folder)
        assert work(str(collected), folder, 0, 1)
        return left(output)


def with_sae(collected: Path, folder: str) -> Store:
    shutil.copytree(collected / "sae", Path(folder) / "sae")
    return open_store(folder)


def left(output: Store) -> dict[str, bytes]:
    return {key: output.read(key) for key in output.list("interpret/")}


@st.composite
def schedules(draw: st.DrawFn) -> tuple[int, list[Run], str]:
    of = draw(st.integers(1, 7))
    killed = st.tuples(st.integers(0, of - 1), st.integers(1, 14))
    whole = st.permutations(range(of)).map(lambda order: [(index, None) for index in order])
    method = draw(st.sampled_from(["create", "put", "delete"]))
    return of, [*draw(st.lists(killed, max_size=5)), *draw(whole)], method


@given(schedules())
@settings(max_examples=25)
def test_the_bytes_are_those_of_one_worker(
    collected: Path, alone: dict[str, bytes], schedule: tuple[int, list[Run], str]
) -> None:
    of, runs, method = schedule
    with tempfile.TemporaryDirectory() as folder:
        output = with_sae(collected, folder)
        for index, death in runs:
            with pytest.MonkeyPatch.context() as monkeypatch, suppress(CrashError):
                if death is not None:
                    at_call(monkeypatch, LocalStore, method, death, crash)
                done = work(str(collected), folder, index, of)
        assert done
        assert left(output) == alone


def test_larger_units_give_the_same_tables(collected: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    output = with_sae(collected, str(tmp_path / "out"))
    larger = SETTINGS.model_copy(update={"unit_tokens": 10_000})
    interpret(open_store(str(collected)), output, None, larger)
    assert len(output.list("interpret/small/codes/")) == 2
    tables = {key for key in alone if key.endswith(".parquet")}
    assert len(tables) == 3
    assert {key: output.read(key) for key in tables} == {key: alone[key] for key in tables}


def test_a_worker_that_goes_on_encodes_only_what_is_missing(
    collected: Path, alone: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = with_sae(collected, str(tmp_path / "out"))
    with pytest.MonkeyPatch.context() as killed, suppress(CrashError):
        at_call(killed, LocalStore, "create", 8, crash)
        work(str(collected), output.url, 0, 1)
    assert len(output.list("interpret/small/units/")) == len(output.list("interpret/small/codes/")) == 4
    encoded: list[int] = []
    monkeypatch.setattr(
        "kubesae.interpret.run.read_block",
        lambda store, ref: (encoded.append(ref.shard * 10 + ref.part), read(store, ref))[1],
    )
    assert work(str(collected), output.url, 0, 1)
    assert sorted(set(encoded)) == [11, 12]
    assert left(output) == alone


def test_units_of_other_settings_are_left_alone(collected: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    output = with_sae(collected, str(tmp_path / "out"))
    more = SETTINGS.model_copy(update={"top_k": 9})
    assert interpret_share(open_store(str(collected)), output, None, more, 0, 2) is None
    theirs = set(output.list("interpret/small/units/"))
    assert len(theirs) == 3
    assert work(str(collected), output.url, 0, 1)
    assert set(output.list("interpret/small/units/")) == theirs
    for key in theirs:
        output.delete(key)
    assert left(output) == alone


@pytest.mark.parametrize("step", ["kubesae.interpret.run.scan", "kubesae.interpret.units.from_bytes"])
def test_a_worker_is_overtaken(
    collected: Path, alone: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """While it encodes its first unit, or merges the first, another does all that is left and removes the units."""
    output = with_sae(collected, str(tmp_path / "out"))
    original, calls = resolve_name(step), 0

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            monkeypatch.setattr(step, original)
            assert work(str(collected), output.url, 0, 1)
            monkeypatch.setattr(step, overtaken)
        return original(*args, **kwargs)

    monkeypatch.setattr(step, overtaken)
    assert work(str(collected), output.url, 0, 1)
    assert left(output) == alone
    assert calls < 6


@pytest.mark.slow
def test_eight_processes_give_the_bytes_of_one(collected: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    output = with_sae(collected, str(tmp_path / "out"))
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
        done = [pool.submit(work, str(collected), output.url, index, 8) for index in range(8)]
        assert any(future.result() for future in done)
    assert left(output) == alone
