"""In which numerics class a part is collected again: its own, its neighbours', or none without `--new-class`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from kubesae.collect import Share, collect, plan_work
from kubesae.collect.events import Events
from kubesae.errors import EXIT_USER, KubesaeError, UserError
from kubesae.ledger import keys, read_record, record_list
from kubesae.model.resident import ResidentEngine
from kubesae.prepare import prepare
from kubesae.store import Store, open_store
from kubesae.verify import examine, verify
from repairing import bits_depend_on_threads, data_of, edit_numerics, flip, run, tar_of
from small_experiment import edit_record
from tiny_collected import PILOT_TOKENS

if TYPE_CHECKING:
    from pathlib import Path

    from kubesae.experiment import Experiment


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


def test_the_class_of_a_quarantined_record_is_one_of_its_part(broken: tuple[Experiment, Store]) -> None:
    """A repair was killed after it had set the record aside."""
    _, store = broken
    edit_numerics(store, 1, threads=7)
    store.create(keys.quarantine(0, 1, "0" * 12), store.read(keys.record(0, 1)))
    store.delete(keys.record(0, 1))
    work = plan_work(store, examine(store, "all", "ledger", PILOT_TOKENS).findings)
    assert [numerics.threads for numerics in work.ledger.classes(work.parts[0])] == [1, 7]
