"""Repair: to the bytes that there were, in the class that they were made in, or not at all; a kill changes nothing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from damages import PARTS, Damaged
from kubesae.cli.main import _run, group
from kubesae.collect import plan_work, repair
from kubesae.errors import EXIT_DONE, EXIT_USER, DamagedError, IdentityError, KubesaeError
from kubesae.experiment import Experiment, canonical_json
from kubesae.ledger import Plan, keys, read_record, require_identity
from kubesae.store.local import LocalStore
from kubesae.verify import examine, verify
from repairing import bits_depend_on_threads, data_of, edit_numerics, flip, run, tar_of
from small_experiment import edit_record
from tiny_collected import PILOT_TOKENS, copy_of, tree
from tiny_models import VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kubesae.store import Store


def test_a_sound_record_is_not_replaced(broken: tuple[Experiment, Store]) -> None:
    experiment, store = broken
    before = data_of(store)
    flip(store, tar_of(store, 0, 1))
    assert run(experiment, store) == [
        "Shard 0, part 1: changed tar: collected again, to the digest that its record names"
    ]
    assert data_of(store) == before


def test_a_record_that_was_wrong_is_kept_in_quarantine(broken: tuple[Experiment, Store]) -> None:
    experiment, store = broken
    whole = store.read(keys.record(0, 1))
    forged = []
    for identity in ("0" * 64, "1" * 64):
        edit_record(store, keys.record(0, 1), identity=identity)
        forged.append(store.read(keys.record(0, 1)))
        (line,) = run(experiment, store)
        known = "to the bytes that a surviving tar is named by; the record that was there is"
        copy = "activations/quarantine/shard-0000/part-000001."
        assert line.startswith(f"Shard 0, part 1: forged record: collected again, {known} {copy}")
        assert store.read(keys.record(0, 1)) == whole
    kept = [data for key, data in tree(store).items() if key.startswith(keys.QUARANTINE)]
    assert sorted(kept) == sorted(forged)


def test_moments_are_taken_from_the_tars_without_the_model(
    broken: tuple[Experiment, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, store = broken
    before = data_of(store)
    for layer in read_record(store, 1, 0).layers:
        store.delete(layer.moments)
    monkeypatch.setattr("kubesae.collect.repairs.load_engine", lambda *_: pytest.fail("the model was loaded"))
    assert run(experiment, store) == ["Shard 1, part 0: missing moments: taken again from its tars"]
    assert data_of(store) == before


def test_moments_over_a_tar_that_is_damaged_unseen_are_collected_again(broken: tuple[Experiment, Store]) -> None:
    experiment, store = broken
    before = data_of(store)
    flip(store, tar_of(store, 0, 0))
    store.delete(read_record(store, 0, 0).layers[0].moments)
    run(experiment, store, "ledger")
    assert data_of(store) == before


def test_other_bytes_than_a_sound_record_names_replace_nothing(
    broken: tuple[Experiment, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, store = broken
    bits_depend_on_threads(monkeypatch)
    flip(store, tar_of(store, 0, 1))
    before = data_of(store)
    with pytest.raises(DamagedError, match=r"gives other bytes than its record names; nothing of it was touched"):
        run(experiment, store)
    assert data_of(store) == before


def test_parts_that_were_never_collected_are_left_to_collect(broken: tuple[Experiment, Store]) -> None:
    _, store = broken
    last = read_record(store, 0, 3)
    store.delete(keys.record(0, 3))
    for layer in last.layers:
        store.delete(layer.key)
    work = plan_work(store, examine(store, "all", "full", PILOT_TOKENS).findings)
    assert (work.count, [suspect.place for suspect in work.uncollected]) == (0, [(0, 3)])
    store.delete(keys.record(0, 1))  # but a gap is damage
    work = plan_work(store, examine(store, "all", "full", PILOT_TOKENS).findings)
    assert [suspect.place for suspect in work.parts] == [(0, 1)]


@pytest.mark.parametrize("change", [{"storage": "float32"}, {"contexts_per_block": 1}])
def test_another_experiment_repairs_nothing(broken: tuple[Experiment, Store], change: dict[str, Any]) -> None:
    experiment, store = broken
    flip(store, tar_of(store, 0, 1))
    before = data_of(store)
    with pytest.raises(IdentityError, match=next(iter(change))):
        run(experiment.model_copy(update=change), store)
    assert data_of(store) == before


def test_the_command_lists_mends_and_says_what_it_did(
    broken: tuple[Experiment, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, store = broken
    before = data_of(store)
    file = tmp_path / "experiment.yaml"
    file.write_bytes(canonical_json(experiment.model_dump(mode="json")))

    def command(*arguments: str) -> list[str]:
        result = CliRunner().invoke(group, ["repair", str(file), "--workers", "1", *arguments])
        assert result.exit_code == 0, result.output
        return result.output.splitlines()

    assert command() == ["✓ Nothing to repair"]
    flip(store, tar_of(store, 0, 1))
    store.delete(read_record(store, 1, 0).layers[0].moments)
    store.put(keys.record(0, 9), store.read(keys.record(0, 3)))
    store.put(keys.tokens(0), b"x")
    store.put(keys.INDEX, b"x")
    damaged = data_of(store)
    assert command("--dry-run") == [
        "tokens/shard-0000.npy: would be made again",
        "Shard 1, part 0: missing moments: would be taken again from its tars",
        "Shard 0, part 9: foreign record: the record would be set aside",
        "Shard 0, part 1: changed tar: would be collected again",
        "activations/index.parquet: would be written anew",
        "5 to repair; nothing was done",
    ]
    assert data_of(store) == damaged
    shown = command()
    assert shown[0] == "tokens/shard-0000.npy: made again"
    assert shown[-2] == "activations/index.parquet: deleted, verify writes it anew"
    assert shown[-1] == "✓ 5 repaired, and every part verifies (mode full)"
    assert before.items() <= data_of(store).items()


class Killed(BaseException):
    """The process is gone."""


@contextmanager
def killed_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kill at the next write, or creation, or deletion, after so many of them."""
    left = [writes]

    def dying(method: Any) -> Any:
        def call(self: LocalStore, *arguments: Any, **options: Any) -> Any:
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return method(self, *arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("put", "create", "delete"):
            patch.setattr(LocalStore, name, dying(getattr(LocalStore, name)))
        yield


@pytest.mark.parametrize("names", [("forged identity", "missing tar"), ("NaN", "missing moments"), ("doubled record",)])
def test_a_kill_at_any_moment_leaves_what_another_repair_finishes(
    broken: tuple[Experiment, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    experiment, store = broken
    before = data_of(store)
    damaged = Damaged(store, Plan.of(require_identity(store)), VOCABULARY)
    for number, name in enumerate(names):
        PARTS[name](damaged, np.random.Generator(np.random.PCG64(number)), [(0, number), (1, 2)])
    work = plan_work(store, examine(store, "all", "full", PILOT_TOKENS).findings)
    for writes in range(100):
        this, copy = copy_of(experiment, tmp_path / f"kill-{writes}")
        try:
            with killed_after(writes, monkeypatch):
                repair(this, copy, work, lambda _: None)
        except Killed:
            run(this, copy)
            assert verify(copy, "all", "full", PILOT_TOKENS).passed
            assert before.items() <= data_of(copy).items()
        else:
            break
    assert writes >= 4


def test_a_part_that_was_committed_since_verify_looked_is_left_alone(broken: tuple[Experiment, Store]) -> None:
    """Reading every byte takes hours, in which a collection goes on, perhaps on another machine."""
    _, store = broken
    edit_numerics(store, 1, device="abacus")
    record = store.read(keys.record(0, 1))
    store.delete(keys.record(0, 1))
    findings = examine(store, "all", "full", PILOT_TOKENS).findings
    assert [finding.kind for finding in findings] == ["missing record"]
    store.put(keys.record(0, 1), record)
    work = plan_work(store, findings)
    assert (work.count, work.uncollected) == (0, ())


def test_a_record_that_another_repair_replaced_meanwhile_is_not_deleted(broken: tuple[Experiment, Store]) -> None:
    experiment, store = broken
    whole = store.read(keys.record(0, 1))
    edit_record(store, keys.record(0, 1), identity="0" * 64)
    work = plan_work(store, examine(store, "all", "full", PILOT_TOKENS).findings)
    store.put(keys.record(0, 1), whole)
    edit_numerics(store, 1, forward_batch=2)
    mended = store.read(keys.record(0, 1))
    with pytest.raises(KubesaeError, match=r"Shard 0, part 1: forged record.*has changed since.*Let it end"):
        repair(experiment, store, work, lambda _: None)
    assert store.read(keys.record(0, 1)) == mended


def test_damage_that_stays_is_no_success_beside_parts_that_are_not_collected(
    broken: tuple[Experiment, Store],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment, store = broken
    file = tmp_path / "experiment.yaml"
    file.write_bytes(canonical_json(experiment.model_dump(mode="json")))
    for part in (2, 3):
        last = read_record(store, 0, part)
        for key in (keys.record(0, part), *(layer.key for layer in last.layers)):
            store.delete(key)
    assert _run(["repair", str(file), "--workers", "1"]) == EXIT_DONE
    assert capsys.readouterr().out.splitlines() == [
        "✓ Nothing to repair",
        "Shard 0: 2 parts are not collected yet; `kubesae collect` goes on",
    ]
    flip(store, tar_of(store, 0, 0))
    monkeypatch.setattr("kubesae.cli.repair._mend", lambda *_, **__: None)
    assert _run(["repair", str(file), "--workers", "1"]) == EXIT_USER
    assert "changed tar: activations/layer-001/shard-0000/part-000000" in capsys.readouterr().out
