"""What a look at a store shows, compared with what the programs find there, and what it costs in listings."""

from __future__ import annotations

import json
from bisect import bisect_right
from datetime import UTC, datetime

import pytest

from kubesae.errors import DamagedError
from kubesae.experiment import DataIdentity, canonical_json
from kubesae.ledger import (
    PHASES,
    LayerRecord,
    Numerics,
    Plan,
    Record,
    TrainPoint,
    keys,
    phase_complete,
    shard_progress,
)
from kubesae.store import open_store
from kubesae.store.local import LocalStore
from kubesae.store.s3_wire import Wire
from kubesae.store.store import MAX_PAGE, ObjectInfo
from kubesae.verify import verify
from kubesae_operator.bucket import Bucket, SaeProgress
from small_experiment import edit_record, small_experiment, write_small

SAES = [{"name": "a"}, {"name": "b", "k": 4}]
BEST = {"checkpoint": "checkpoints/step-00000020", "step": 20, "epoch": 2, "val_loss": 0.5, "l0": 31.25}


@pytest.fixture
def data(tmp_path):
    return open_store(str(tmp_path / "data"))


def bucket_of(store, output=None, phases=PHASES, **changes):
    return Bucket(store, output or store, small_experiment(store.url, sae=SAES, **changes), phases)


def same_as_the_programs_say(view, store):
    described = small_experiment(store.url, sae=SAES)
    for phase in PHASES:
        assert (phase in view.complete) == phase_complete(phase, store, store, described), phase


def test_where_nothing_is_there_nothing_is_complete(data):
    view = bucket_of(data).look()
    assert (view.complete, view.collection, view.next_parts, view.saes, view.bytes) == (frozenset(), None, (), (), 0)
    same_as_the_programs_say(view, data)


def test_a_run_is_seen_step_by_step_by_one_bucket_that_remembers(data):
    write_small(data)
    plan = Plan.of(small_experiment(data.url))
    parts = [(part.shard, part.index) for part in plan.all_parts()]
    stored = {place: data.read(keys.record(*place)) for place in parts}
    for place in parts:
        data.delete(keys.record(*place))
    bucket = bucket_of(data)
    same_as_the_programs_say(bucket.look(), data)
    for place in [(1, 0), (0, 0), (0, 1), (1, 2), (1, 1), (0, 2)]:
        data.put(keys.record(*place), stored[place])
        view = bucket.look()
        same_as_the_programs_say(view, data)
        said = [shard_progress(data, plan, shard) for shard in range(2)]
        assert view.next_parts == tuple(progress.parts for progress in said)
        assert [shard.tokens for shard in view.collection.shards] == [progress.rows for progress in said]
    assert view.complete == {"prepare", "collect"}
    layers = [layer for record in stored.values() for layer in json.loads(record)["layers"]]
    assert view.bytes == pytest.approx(sum(layer["bytes"] for layer in layers), rel=0.05)
    verify(data, "pilot", "full", 200)
    same_as_the_programs_say(bucket.look(), data)
    verify(data, "all", "ledger", 200)
    view = bucket.look()
    assert view.complete == {"prepare", "pilot", "collect", "verify"}
    same_as_the_programs_say(view, data)
    for name in ("a", "b"):
        data.put(keys.report(name), b"")
        same_as_the_programs_say(bucket.look(), data)
    for name in ("a", "b"):
        data.put(keys.page(name), b"<html>")
        same_as_the_programs_say(bucket.look(), data)
    assert bucket.look().complete == set(PHASES) - {"fetch"}


def test_a_report_of_other_records_or_less_thorough_than_asked_opens_no_gate(data):
    write_small(data)
    verify(data, "all", "ledger", 200)
    assert "verify" in bucket_of(data).look().complete
    assert "verify" not in bucket_of(data, verify={"mode": "full"}).look().complete
    verify(data, "pilot", "ledger", 200)
    assert "pilot" not in bucket_of(data).look().complete
    report = json.loads(data.read(keys.verify_report("all")))
    data.put(keys.verify_report("all"), canonical_json({**report, "records_sha256": "0" * 64}))
    assert "verify" not in bucket_of(data).look().complete


def test_a_training_is_seen_as_far_as_it_is(data, tmp_path):
    write_small(data)
    output = open_store(str(tmp_path / "output"))
    bucket = bucket_of(data, output)
    assert bucket.look().saes == (SaeProgress("a"), SaeProgress("b"))
    output.put(f"{keys.checkpoint_folder('a', 12)}{keys.CHECKPOINT_STATE}", b"{}")
    output.put(keys.metrics("a", 15), b'{"kind": "step", "step": 15, "epoch": 1, "loss": 0.75, "l0": 40.5}\n')
    point = TrainPoint(15, 1, 0.75, 40.5)
    assert bucket.look().saes[0] == SaeProgress("a", step=12, point=point)
    output.put(keys.best("a"), canonical_json(BEST))
    output.put(keys.report("a"), b"")
    trained = SaeProgress("a", trained=True, step=12, point=TrainPoint(20, 2, 0.5, 31.25))
    assert bucket.look().saes[0] == trained
    output.delete(keys.metrics("a", 15))  # nothing more is asked about it
    output.put(keys.page("a"), b"<html>")
    view = bucket.look()
    assert view.saes[0].interpreted
    assert not {"train", "interpret"} & view.complete


def test_phases_that_are_off_cost_nothing_and_are_not_shown(data):
    write_small(data)
    view = bucket_of(data, phases=("train",)).look()
    assert (view.complete, view.collection, view.lists) == (frozenset(), None, 6)
    assert bucket_of(data, phases=("collect",)).look().saes == ()
    assert bucket_of(data, phases=("pilot",)).look().complete == frozenset()


def test_the_data_of_another_experiment_are_named_and_not_looked_at(data):
    write_small(data)
    view = bucket_of(data, layers=[2]).look()
    assert "layers" in view.mismatch
    assert data.url in view.mismatch
    assert (view.collection, view.next_parts, view.saes) == (None, (), ())


def test_what_is_no_record_of_the_plan_counts_for_nothing(data):
    write_small(data)
    for key in (keys.record(7, 0), keys.record(0, 3), f"{keys.LEDGER}shard-0000/readme.txt", f"{keys.LEDGER}zz"):
        data.put(key, b"{}")
    view = bucket_of(data).look()
    assert [shard.parts for shard in view.collection.shards] == [3, 3]


def test_a_damaged_record_is_an_error(data):
    write_small(data)
    edit_record(data, keys.record(0, 0), rows="many")
    with pytest.raises(DamagedError, match="rows"):
        bucket_of(data).look()


def test_what_was_complete_is_looked_at_anew_after_forgetting(data):
    write_small(data)
    bucket = bucket_of(data)
    assert "collect" in bucket.look().complete
    data.delete(keys.record(1, 1))
    assert "collect" in bucket.look().complete
    bucket.forget()
    view = bucket.look()
    assert "collect" not in view.complete
    assert view.next_parts == (3, 1)


@pytest.mark.s3
def test_a_real_server_is_asked_as_often_as_the_view_says(s3_bucket, monkeypatch):
    data = open_store(f"{s3_bucket}/prefix", deadline=60)
    write_small(data)
    listed, listing = [], Wire.list

    def counted(self, query, end):
        listed.append(query)
        return listing(self, query, end)

    monkeypatch.setattr(Wire, "list", counted)
    bucket = bucket_of(data)
    for _ in range(3):
        listed.clear()
        view = bucket.look()
        assert len(listed) == view.lists
    assert view.lists == 2 * 4  # of complete phases nothing is asked: three about each SAE's training, one more


SLOTS, PARTS = 1000, 100
TIME = datetime(2026, 5, 1, tzinfo=UTC)


class ManyRecords(LocalStore):
    """A store with a long ledger, which lies in memory. It counts its listings, as a server would that pages them."""

    def __init__(self, folder):
        super().__init__(folder)
        self.records = []
        self.lists = 0

    def size(self, key):
        self.lists += 1  # of a server a listing is asked
        return super().size(key)

    def list(self, prefix="", *, after=None, limit=None):
        if prefix != keys.LEDGER:
            self.lists += 1
            return super().list(prefix, after=after, limit=limit)
        start = bisect_right(self.records, after or "")
        found = self.records[start : start + limit] if limit else self.records[start:]
        self.lists += 1 if limit else 1 + len(found) // MAX_PAGE
        return dict.fromkeys(found, ObjectInfo(1000, TIME))


@pytest.fixture
def many(tmp_path):
    """Give a store, and the experiment of a thousand slots that is collected there."""
    store = ManyRecords(tmp_path)
    wide = {"tokens": SLOTS * PARTS * 192, "num_shards": SLOTS, "sae": [{"name": "a"}]}
    described = small_experiment(store.url, **wide)
    identity = DataIdentity.of(described, "0" * 64, "1" * 40, 8)
    assert Plan.of(identity).parts(0) == PARTS
    store.put(keys.IDENTITY, identity.to_json())
    store.put(keys.TOKENS_MANIFEST, b"{}")
    layer = LayerRecord(
        layer=1, key="k", bytes=384, sha256="2" * 64, blocks=(0,), flags=(0, 0, 0), moments="m", moments_sha256="3" * 64
    )
    numerics = Numerics(engine="resident", forward_batch=1, device="cpu", threads=1, versions={})
    record = Record(
        identity=identity.sha256, shard=0, part=0, rows=192, tokens_sha256="4" * 64, layers=(layer,), numerics=numerics
    )
    store.put(keys.record(0, 0), record.to_json())
    return store, Bucket(store, store, described, ("prepare", "collect", "train"))


def look(store, bucket):
    """Look; return the view and how many listings the look took by the store's count."""
    before = store.lists
    view = bucket.look()
    assert view.lists == store.lists - before, "the view says another number"
    return view, view.lists


def commit(store, parts):
    store.records = sorted(keys.record(shard, part) for shard in range(SLOTS) for part in range(parts(shard)))


def test_a_thousand_slots_cost_few_listings_however_far_they_are(many):
    store, bucket = many
    view, lists = look(store, bucket)
    assert (view.collection.tokens, lists <= 10) == (0, True)
    commit(store, lambda _: 50)
    view, lists = look(store, bucket)  # the first look: one listing a thousand records
    assert (view.collection.tokens, lists <= 60) == (SLOTS * 50 * 192, True)
    _, lists = look(store, bucket)  # nothing new: what is known is skipped where a page does not hold it anyway
    assert lists <= 60
    commit(store, lambda shard: 50 + shard % 3)
    view, lists = look(store, bucket)
    assert sum(view.next_parts) == sum(50 + shard % 3 for shard in range(SLOTS))
    assert lists <= 60
    assert view.bytes == 2 * view.collection.tokens
    commit(store, lambda shard: PARTS - (shard == 500))  # one is late
    look(store, bucket)
    view, lists = look(store, bucket)
    assert (view.collection.complete, lists <= 5) == (False, True)
    commit(store, lambda _: PARTS)
    view, _ = look(store, bucket)
    assert "collect" in view.complete
    _, lists = look(store, bucket)
    assert lists == 3  # the training alone
