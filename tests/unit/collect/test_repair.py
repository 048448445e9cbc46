"""Repair: to the bytes that there were, in the class that they were made in, or not at all; a kill changes nothing."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from damages import PARTS, Damaged
from kubesae.cli.main import _run, group
from kubesae.collect import Share, collect, plan_work, repair
from kubesae.collect.events import Events
from kubesae.errors import EXIT_DONE, EXIT_USER, DamagedError, IdentityError, KubesaeError, UserError
from kubesae.experiment import Experiment, canonical_json
from kubesae.ledger import Plan, keys, read_record, record_list, require_identity
from kubesae.model.resident import ResidentEngine
from kubesae.prepare import prepare, restore_tokens
from kubesae.store import Store, open_store
from kubesae.store.local import LocalStore
from kubesae.verify import examine, verify
from small_experiment import edit_record
from tiny_collected import PILOT_TOKENS, collect_all, copy_of, engine_kept, tiny_experiment, tree, write_inputs
from tiny_models import VOCABULARY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Experiment]:
    folder = tmp_path_factory.mktemp("repair")
    write_inputs(folder)
    experiment = tiny_experiment(folder, tokens=500)
    collect_all(experiment)
    with engine_kept():
        yield experiment


@pytest.fixture
def broken(clean: Experiment, tmp_path: Path) -> tuple[Experiment, Store]:
    return copy_of(clean, tmp_path / "data")


def run(experiment: Experiment, store: Store, mode: Any = "full", **options: Any) -> list[str]:
    """Verify and repair once; the lines."""
    lines: list[str] = []
    work = plan_work(store, examine(store, "all", mode, PILOT_TOKENS).findings)
    repair(experiment, store, work, lambda files: restore_tokens(experiment, store, files), say=lines.append, **options)
    return lines


def data_of(store: Store) -> dict[str, bytes]:
    """Every object but the report, which says what was found last, and the lists of URLs, which name the prefix."""
    return {
        key: data for key, data in tree(store).items() if not key.startswith("verify/") and not key.endswith(".txt")
    }


def flip(store: Store, key: str) -> None:
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 1
    store.put(key, bytes(data))


def tar_of(store: Store, shard: int, part: int, layer: int = 0) -> str:
    return read_record(store, shard, part).layers[layer].key


def edit_numerics(store: Store, part: int, **changes: Any) -> None:
    key = keys.record(0, part)
    values = json.loads(store.read(key))
    values["numerics"] |= changes
    store.put(key, canonical_json(values))


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


@pytest.mark.parametrize("change", [{"device": "abacus"}, {"engine": "other"}, {"versions": {"torch": "0.1"}}])
def test_a_class_that_this_machine_cannot_give_is_refused_and_nothing_touched(
    broken: tuple[Experiment, Store], change: dict[str, Any]
) -> None:
    experiment, store = broken
    edit_numerics(store, 1, **change)
    flip(store, tar_of(store, 0, 1))
    flip(store, tar_of(store, 1, 1))  # this one could be had
    before = data_of(store)
    field, value = next(iter(change.items()))
    name = "torch" if field == "versions" else field
    wanted = rf"(?s)Shard 0, part 1.*cannot give the numerics class.*nothing of it was touched.*{name}: '.*' there"
    with pytest.raises(UserError, match=wanted) as caught:
        run(experiment, store)
    assert caught.value.exit_code == EXIT_USER
    assert "--new-class" in str(caught.value)
    assert str(value if field != "versions" else "0.1") in str(caught.value)
    assert data_of(store) == before


def test_with_new_class_it_is_collected_in_this_machines(broken: tuple[Experiment, Store]) -> None:
    experiment, store = broken
    edit_numerics(store, 1, device="abacus")
    flip(store, tar_of(store, 0, 1))
    (line,) = run(experiment, store, new_class=True)
    assert "collected again, in this machine's class; the record that was there is activations/quarantine" in line
    assert read_record(store, 0, 1).numerics == read_record(store, 0, 0).numerics
    assert verify(store, "all", "full", PILOT_TOKENS).passed


def test_threads_and_batch_are_set_as_the_record_says(broken: tuple[Experiment, Store]) -> None:
    """In the whole shard another batch and thread count than the experiment's: that is what the part is made with."""
    experiment, store = broken
    before = data_of(store)
    changed = experiment.model_copy(
        update={"collect": experiment.collect.model_copy(update={"threads": 2, "forward_batch": 1})}
    )
    edit_record(store, keys.record(0, 1), rows=7)
    run(changed, store)
    assert before.items() <= data_of(store).items()


def bits_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the tiny model do what large ones do."""
    forward = ResidentEngine.forward

    def by_threads(self: ResidentEngine, *arguments: Any) -> dict[int, torch.Tensor]:
        outputs = forward(self, *arguments)
        return {layer: output + torch.get_num_threads() / 8 for layer, output in outputs.items()}

    monkeypatch.setattr(ResidentEngine, "forward", by_threads)


@pytest.fixture
def two_classes(clean: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Experiment, Store]:
    """Parts 0 and 1 of shard 0 were collected with two threads, the rest with one."""
    bits_depend_on_threads(monkeypatch)
    experiment = clean.model_copy(update={"data": str(tmp_path / "two")})
    store = open_store(experiment.data)
    prepare(experiment, store)
    two = experiment.model_copy(update={"collect": experiment.collect.model_copy(update={"threads": 2})})
    collect(two, store, Share((0,), 128), Events(lambda _: None, 100))
    collect(experiment, store, Share((0, 1)), Events(lambda _: None, 100))
    torch.set_num_threads(1)
    assert [read_record(store, 0, part).numerics.threads for part in range(4)] == [2, 2, 1, 1]
    return experiment, store


def test_a_lost_record_gets_the_class_of_which_tars_survive(two_classes: tuple[Experiment, Store]) -> None:
    """The nearest neighbour of part 2 is of the other class: only the names of the tars tell."""
    experiment, store = two_classes
    before = data_of(store)
    for part in (0, 2):
        store.delete(keys.record(0, part))
    lines = run(experiment, store)
    assert len(lines) == 2
    assert all(line.endswith("to the bytes that a surviving tar is named by") for line in lines)
    assert before.items() <= data_of(store).items()


def test_without_tars_a_lost_record_gets_its_neighbours_class(two_classes: tuple[Experiment, Store]) -> None:
    experiment, store = two_classes
    for layer in read_record(store, 0, 2).layers:
        store.delete(layer.key)
    store.delete(keys.record(0, 2))
    (line,) = run(experiment, store)
    assert line.endswith("as its neighbours were; no surviving tar says what it was")
    assert read_record(store, 0, 2).numerics.threads == 2
    assert verify(store, "all", "full", PILOT_TOKENS).passed


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


def test_memory_that_runs_out_is_no_reason_for_another_class(
    broken: tuple[Experiment, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, store = broken
    flip(store, tar_of(store, 0, 1))
    forward = ResidentEngine.forward

    def small_memory(self: ResidentEngine, ids: Any, documents: Any = None) -> Any:
        if len(ids) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, ids, documents)

    monkeypatch.setattr(ResidentEngine, "forward", small_memory)
    with pytest.raises(KubesaeError, match=r"memory ran out at its forward batch of 3 contexts.*larger machine"):
        run(experiment, store)


def test_when_no_record_is_sound_only_surviving_tars_or_a_new_class_can_tell(broken: tuple[Experiment, Store]) -> None:
    experiment, store = broken
    before = data_of(store)
    records = record_list(store)
    for key in records:
        store.put(key, b"{")
    with pytest.raises(UserError, match=r"no sound record says what the part was collected with"):
        run(experiment, store)
    run(experiment, store, new_class=True)  # this machine is the one that collected it
    assert {key: store.read(key) for key in records} == {key: before[key] for key in records}


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


def test_a_class_that_cannot_be_had_is_not_replaced_by_a_neighbour_s(two_classes: tuple[Experiment, Store]) -> None:
    """Part 1 was collected on another machine, as part 0 was; parts 2 and 3 could be made here."""
    experiment, store = two_classes
    for part in (0, 1):
        edit_numerics(store, part, device="abacus", threads=3)
    store.delete(keys.record(0, 1))
    before = data_of(store)
    with pytest.raises(UserError, match=r"(?s)Shard 0, part 1.*cannot give the numerics class.*device: 'abacus' there"):
        run(experiment, store)
    assert keys.record(0, 1) not in data_of(store)
    assert before == data_of(store)
    for key in [key for key in store.list("activations/layer-") if "shard-0000/part-000001" in key]:
        store.delete(key)
    with pytest.raises(UserError, match="cannot give the numerics class"):
        run(experiment, store)
    run(experiment, store, new_class=True)
    assert verify(store, "all", "full", PILOT_TOKENS).passed


def test_few_neighbours_are_asked_for_their_class(
    broken: tuple[Experiment, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be tens of thousands of them, and each is a request."""
    _, store = broken
    store.delete(keys.record(0, 1))
    monkeypatch.setattr("kubesae.collect.suspects.NEAR", 3)
    work = plan_work(store, examine(store, "all", "ledger", PILOT_TOKENS).findings)
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "kubesae.collect.suspects.read_record",
        lambda _, shard, part: asked.append((shard, part)) or read_record(store, shard, part),
    )
    assert len(work.ledger.classes(work.parts[0])) == 1
    assert asked == [(0, 0), (0, 2), (0, 3)]


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


def test_the_class_of_a_quarantined_record_is_one_of_its_part(broken: tuple[Experiment, Store]) -> None:
    """A repair was killed after it had set the record aside."""
    _, store = broken
    edit_numerics(store, 1, threads=7)
    store.create(keys.quarantine(0, 1, "0" * 12), store.read(keys.record(0, 1)))
    store.delete(keys.record(0, 1))
    work = plan_work(store, examine(store, "all", "ledger", PILOT_TOKENS).findings)
    assert [numerics.threads for numerics in work.ledger.classes(work.parts[0])] == [1, 7]
