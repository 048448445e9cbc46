"""Collection over a tiny real model: exact totals, resume, refusal, memory, competing attempts."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
import torch

from kubesae.collect import Events, Share, collect
from kubesae.collect.capture import batches
from kubesae.collect.run import _Worker
from kubesae.errors import ConfigError, IdentityError, KubesaeError
from kubesae.experiment import Collect, Experiment
from kubesae.ledger import Part, Plan, keys, read_identity, read_record, record_list
from kubesae.model.resident import ResidentEngine
from kubesae.model.streamed import Lane
from kubesae.prepare import prepare
from kubesae.shards import read_block, read_index
from kubesae.store import open_store
from kubesae.verify import verify
from tiny_models import save_model, text


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, "llama")
    corpus = folder.parent / f"{folder.name}-corpus"
    corpus.mkdir()
    for i in range(60):
        (corpus / f"{i}.txt").write_text(text(i))
    return folder


@pytest.fixture
def experiment(model, tmp_path):
    return Experiment(
        data=str(tmp_path / "data"),
        model=str(model),
        layers=(1, 2),
        corpora=({"name": "words", "source": f"{model}-corpus", "format": "text"},),
        tokens=1001,
        num_shards=2,
        context=32,
        contexts_per_part=4,
        contexts_per_block=2,
        chunk=200,
        pilot={"tokens": 200, "chunk": 100},
        collect={"forward_batch": 3},
    )


@pytest.fixture
def prepared(experiment):
    store = open_store(experiment.data)
    prepare(experiment, store)
    return store


def run(experiment, store, share=None, lines=None):
    lines = [] if lines is None else lines
    collect(experiment, store, share or Share((0, 1)), Events(lines.append, experiment.chunk))
    return lines


def tree(store):
    return {key: store.read(key) for key in store.list()}


def test_totals_are_exact_and_every_byte_verifies(experiment, prepared):
    run(experiment, prepared)
    report = verify(prepared, "all", "full", experiment.pilot.tokens)
    assert report.passed
    assert report.tokens == 1001
    assert report.tars_read == report.tars == 2 * (4 + 4)


def test_lines_read_as_documented(experiment, prepared):
    lines = run(experiment, prepared, Share((0,)))
    assert lines == [
        "Shard 0: Loading model...",
        "Shard 0: Model loaded successfully",
        "Shard 0: 200 tokens collected",
        "Shard 0: Saved chunk 0",
        "Shard 0: 400 tokens collected",
        "Shard 0: Saved chunk 1",
        "Shard 0: 501 tokens collected",
        "Shard 0: Saved chunk 2",
        "Shard 0: Collection complete!",
    ]


def test_stored_activations_are_the_engines(experiment, prepared):
    run(experiment, prepared)
    identity = read_identity(prepared)
    engine = _Worker(experiment, prepared, *_rest(experiment, prepared))._load(0)
    plan = Plan.of(identity)
    part = plan.part(1, 3)
    ids = np.load(io.BytesIO(prepared.read(keys.tokens(1))))[part.start : part.start + part.rows]
    expected = [
        engine.forward(ids[first : first + n * length].reshape(n, length))[2].reshape(n * length, -1)
        for first, n, length in batches(part, 32, 3)
    ]
    refs = [ref for ref in read_index(prepared, identity, 2) if (ref.shard, ref.part) == (1, 3)]
    found = np.concatenate([read_block(prepared, ref).acts for ref in refs])
    assert torch.equal(torch.from_numpy(found).view(torch.bfloat16), torch.cat(expected))


def _rest(experiment, store):
    from kubesae.corpus import require_manifest

    return require_manifest(store), Share((0,)), Events(lambda _: None, experiment.chunk)


def test_the_pilot_is_the_beginning_of_the_whole_and_nothing_is_collected_twice(experiment, prepared):
    lines = []
    collect(experiment, prepared, Share((0,), experiment.pilot.tokens), Events(lines.append, experiment.pilot.chunk))
    assert [line for line in lines if "chunk" in line] == ["Shard 0: Saved chunk 0", "Shard 0: Saved chunk 1"]
    pilot = tree(prepared)
    assert verify(prepared, "pilot", "full", experiment.pilot.tokens).tokens == 256
    lines = run(experiment, prepared)
    assert "Shard 0: Resuming after 256 tokens" in lines
    whole = tree(prepared)
    assert pilot.items() <= whole.items()


def test_resume_gives_the_bytes_of_an_undisturbed_run(experiment, prepared, monkeypatch):
    whole = open_store(experiment.data + "-whole")
    other = experiment.model_copy(update={"data": whole.url})
    prepare(other, whole)
    run(other, whole)
    forward, calls = ResidentEngine.forward, []

    def fail_in_the_middle(self, *arguments):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return forward(self, *arguments)

    monkeypatch.setattr(ResidentEngine, "forward", fail_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        run(experiment, prepared)
    monkeypatch.setattr(ResidentEngine, "forward", forward)
    done = record_list(prepared)
    assert 0 < len(done) < 8
    run(experiment, prepared)
    assert tree(prepared) == tree(whole)


def test_a_finished_collection_loads_no_model(experiment, prepared, monkeypatch):
    run(experiment, prepared)
    monkeypatch.setattr(ResidentEngine, "load", lambda *_: pytest.fail("the model was loaded"))
    assert run(experiment, prepared) == [f"Shard {i}: Collection complete! (collected before)" for i in (0, 1)]


def test_a_gap_is_filled_and_the_chunks_after_it_are_counted(experiment, prepared):
    run(experiment, prepared)
    before = tree(prepared)
    prepared.delete(keys.record(0, 0))
    lines = run(experiment, prepared, Share((0,)))
    assert lines[-3:] == ["Shard 0: 501 tokens collected", "Shard 0: Saved chunk 2", "Shard 0: Collection complete!"]
    assert tree(prepared) == before


@pytest.mark.parametrize("change", [{"layers": (0, 2)}, {"contexts_per_block": 1}, {"storage": "float32"}])
def test_another_identity_is_refused_and_nothing_touched(experiment, prepared, change):
    run(experiment, prepared, Share((0,)))
    before = tree(prepared)
    with pytest.raises(IdentityError, match=rf"(?s)another experiment; nothing was touched.*{next(iter(change))}"):
        run(experiment.model_copy(update=change), prepared)
    assert tree(prepared) == before


def test_other_weights_are_another_identity(experiment, prepared, model, tmp_path):
    run(experiment, prepared, Share((0,)))
    folder = tmp_path / "elsewhere" / model.name
    save_model(folder, "llama", seed=5)
    before = tree(prepared)
    with pytest.raises(IdentityError, match="model_revision"):
        run(experiment.model_copy(update={"model": str(folder)}), prepared)
    assert tree(prepared) == before


def test_collecting_before_preparing_is_refused(experiment):
    with pytest.raises(ConfigError, match="Run `kubesae prepare` first"):
        run(experiment, open_store(experiment.data))


def test_when_memory_runs_out_the_part_is_done_again_at_half_the_batch(experiment, prepared, monkeypatch):
    forward, sizes = ResidentEngine.forward, []

    def small_memory(self, ids_BT, documents_BT=None):
        sizes.append(len(ids_BT))
        if len(ids_BT) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, ids_BT, documents_BT)

    monkeypatch.setattr(ResidentEngine, "forward", small_memory)
    run(experiment, prepared)
    assert sizes[0] == 3
    assert set(sizes[1:]) == {1}
    assert read_record(prepared, 0, 0).numerics.forward_batch == 1
    assert verify(prepared, "all", "full", 1).passed


def test_memory_too_small_for_one_context_says_what_to_do(experiment, prepared, monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(ResidentEngine, "forward", no_memory)
    with pytest.raises(KubesaeError, match="Give the worker more memory"):
        run(experiment, prepared)
    assert record_list(prepared) == []


def test_activations_that_are_not_finite_are_not_stored(experiment, prepared, monkeypatch):
    forward = ResidentEngine.forward

    def poison(self, ids_BT, documents_BT=None):
        outputs = forward(self, ids_BT, documents_BT)
        outputs[2] = outputs[2].clone()
        outputs[2][0, 5, 3] = float("nan")
        return outputs

    monkeypatch.setattr(ResidentEngine, "forward", poison)
    with pytest.raises(KubesaeError, match=r"Layer 2, shard 0, part 0: the activation of row 5 .* is not finite"):
        run(experiment, prepared)
    assert record_list(prepared) == []


def test_another_attempt_with_other_bytes_wins_and_is_reported(experiment, prepared, caplog, monkeypatch):
    run(experiment, prepared)
    theirs = tree(prepared)
    prepared.delete(keys.record(0, 1))
    create = type(prepared).create

    def they_were_first(self, key, data):
        if key == keys.record(0, 1):
            create(self, key, theirs[key])
        return create(self, key, data)

    forward = ResidentEngine.forward
    monkeypatch.setattr(ResidentEngine, "forward", lambda self, *a: {k: v + 1 for k, v in forward(self, *a).items()})
    monkeypatch.setattr(type(prepared), "create", they_were_first)
    with caplog.at_level(logging.WARNING, "kubesae"):
        run(experiment, prepared)
    assert "committed by another attempt with other bytes" in caplog.text
    assert prepared.read(keys.record(0, 1)) == theirs[keys.record(0, 1)]
    report = verify(prepared, "all", "full", 1)
    assert report.passed
    assert len(report.orphans) == 4


def test_an_upload_that_fails_stops_the_worker(experiment, prepared, monkeypatch):
    put = type(prepared).put

    def full(self, key, data, **options):
        if key.endswith(".tar"):
            raise KubesaeError("the disk is full")
        put(self, key, data, **options)

    monkeypatch.setattr(type(prepared), "put", full)
    with pytest.raises(KubesaeError, match="the disk is full"):
        run(experiment, prepared)
    assert record_list(prepared) == []


def test_batches_are_a_function_of_the_part_alone():
    assert batches(Part(0, 0, 0, 5, 0, 5 * 8), 8, 2) == [(0, 2, 8), (16, 2, 8), (32, 1, 8)]
    assert batches(Part(0, 1, 5, 2, 40, 11), 8, 4) == [(0, 1, 8), (8, 1, 3)]


STREAMED = {"engine": "streamed", "forward_batch": 3, "block_tokens": 300}  # blocks of two parts, of 128 tokens each


def streamed_run(experiment, store, **options):
    run(experiment.model_copy(update={"collect": Collect(**STREAMED | options)}), store)


def test_streamed_layers_give_the_resident_engines_bytes(experiment, prepared):
    whole = open_store(experiment.data + "-whole")
    other = experiment.model_copy(update={"data": whole.url})
    prepare(other, whole)
    run(other, whole)
    streamed_run(experiment, prepared)
    mine, theirs = tree(prepared), tree(whole)
    assert mine.keys() == theirs.keys()
    assert [key for key in mine if mine[key] != theirs[key]] == record_list(prepared)
    found, expected = read_record(prepared, 1, 2), read_record(whole, 1, 2)
    assert found.numerics.engine == "streamed"
    assert found.layers == expected.layers


def test_a_streamed_block_is_done_again_whole_and_gives_the_same_bytes(experiment, prepared, monkeypatch):
    whole = open_store(experiment.data + "-whole")
    other = experiment.model_copy(update={"data": whole.url})
    prepare(other, whole)
    streamed_run(other, whole)
    original, passed = Lane.pass_layer, []

    def fail_in_the_second_block(self, layer, raw):
        passed.append(layer)
        if len(passed) == 5:
            raise KeyboardInterrupt
        return original(self, layer, raw)

    with monkeypatch.context() as patched:
        patched.setattr(Lane, "pass_layer", fail_in_the_second_block)
        with pytest.raises(KeyboardInterrupt):
            streamed_run(experiment, prepared)
    assert passed == [0, 1, 2, 0, 1]
    streamed_run(experiment, prepared)
    assert tree(prepared) == tree(whole)


def test_when_memory_runs_out_a_streamed_block_is_done_again_at_half_the_batch(experiment, prepared, monkeypatch):
    original, sizes = Lane.begin, []

    def small_memory(self, batches):
        sizes.append(max(len(batch.ids_BT) for _, batch in batches))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("out of memory")
        original(self, batches)

    monkeypatch.setattr(Lane, "begin", small_memory)
    streamed_run(experiment, prepared)
    assert sizes[0] == 3
    assert set(sizes[1:]) == {1}
    assert read_record(prepared, 0, 0).numerics.forward_batch == 1
    assert verify(prepared, "all", "full", 1).passed
