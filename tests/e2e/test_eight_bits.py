"""int8-block32 from collecting to what is read of it: the rows of bfloat16 up to half a step, through every program."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from kubesae.cli.main import group
from kubesae.collect import Events, Share, collect
from kubesae.ledger import keys, read_record, record_list, require_identity
from kubesae.model.resident import ResidentEngine
from kubesae.prepare import prepare
from kubesae.shards import read_block, read_index
from kubesae.store import open_store
from kubesae.verify import verify
from repairing import data_of, flip, run, tar_of
from tiny_collected import PILOT_TOKENS, collect_all, copy_of, engine_kept, tiny_experiment, tree, write_inputs

SAE = {"layer": 2, "d_sae": 64, "architecture": "topk", "k": 4, "batch_size": 128, "epochs": 2, "name": "tiny"}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Collect the same rows in bfloat16 and in 8 bits."""
    folder = tmp_path_factory.mktemp("both")
    write_inputs(folder)
    found = {}
    for storage in ("bfloat16", "int8-block32"):
        data = str(folder / storage)
        found[storage] = tiny_experiment(folder, tokens=500, data=data, storage=storage, sae=(SAE,))
        collect_all(found[storage])
    with engine_kept():
        yield found


def blocks(experiment):
    store = open_store(experiment.data)
    return [read_block(store, ref) for ref in read_index(store, require_identity(store), 2)]


def test_rows_are_those_of_bfloat16_up_to_half_a_step(both):
    error = variance = 0.0
    for exact, stored in zip(blocks(both["bfloat16"]), blocks(both["int8-block32"]), strict=True):
        assert (stored.key, stored.row) == (exact.key, exact.row)
        assert np.array_equal(stored.tokens, exact.tokens)
        assert np.array_equal(stored.flags, exact.flags)
        step = np.exp2(np.repeat(stored.exponents, 32, axis=1)[:, : exact.acts.shape[1]].astype(float))
        x, found = exact.float32().astype(float), stored.float32()
        assert (np.abs(found - x) <= step / 2).all()
        kept = exact.flags == 0
        error += ((found - x)[kept] ** 2).sum()
        variance += ((x - x[kept].mean(axis=0))[kept] ** 2).sum()
    report = json.loads(open_store(both["int8-block32"].data).read(keys.verify_report("all")))
    assert report["storage_fvu"]["2"] == pytest.approx(error / variance, rel=0.2)  # the mean over parts


def test_bfloat16_says_nothing_of_an_error(both):
    store = open_store(both["bfloat16"].data)
    assert b"storage_fvu" not in store.read(keys.verify_report("all"))
    assert all(b"storage_fvu" not in store.read(key) for key in record_list(store))


def test_a_stop_and_a_resume_give_the_bytes_of_an_undisturbed_run(both, tmp_path, monkeypatch):
    whole = both["int8-block32"]
    experiment = whole.model_copy(update={"data": str(tmp_path / "data")})
    store = open_store(experiment.data)
    prepare(experiment, store)
    forward, calls = ResidentEngine.forward, []

    def fail_in_the_middle(self, *arguments):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return forward(self, *arguments)

    shares, events = Share((0, 1)), Events(lambda _: None, experiment.chunk)
    with monkeypatch.context() as patch:
        patch.setattr(ResidentEngine, "forward", fail_in_the_middle)
        with pytest.raises(KeyboardInterrupt):
            collect(experiment, store, shares, events)
    assert 0 < len(record_list(store)) < len(record_list(open_store(whole.data)))
    collect(experiment, store, shares, events)
    expected = tree(open_store(whole.data))
    assert all(data == expected[key] for key, data in tree(store).items() if key.startswith("activations/"))


def test_repair_makes_a_damaged_tar_again(both, tmp_path):
    experiment, store = copy_of(both["int8-block32"], tmp_path / "data")
    before = data_of(store)
    flip(store, tar_of(store, 0, 1))
    store.delete(read_record(store, 1, 2).layers[0].moments)
    assert not verify(store, "all", "full", PILOT_TOKENS).passed
    run(experiment, store)
    assert verify(store, "all", "full", PILOT_TOKENS).passed
    assert data_of(store) == before


def test_training_evaluation_interpretation_and_trace_read_it(both, tmp_path):
    experiment, store = copy_of(both["int8-block32"], tmp_path / "data")
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))

    def kubesae(*arguments):
        done = CliRunner().invoke(group, [arguments[0], str(file), *arguments[1:]], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "stored as int8-block32, which added an FVU of 0.000" in kubesae("verify", "--mode", "full")
    kubesae("train", "--train-device", "cpu")
    kubesae("evaluate", "--ce-contexts", "2")
    found = json.loads(store.read(keys.evaluation("tiny")))
    assert 0 < found["fvu"] < 1
    assert found["cross_entropy"]["contexts"] == 2
    kubesae("interpret", "--statistics")
    assert store.exists(keys.interpretation("tiny", keys.INTERPRETED))
    norm = json.loads(kubesae("trace", "--row", "5", "--norm", "--json"))["stored"]["norm"]
    first = read_block(store, read_index(store, require_identity(store), 1)[0])
    assert norm == pytest.approx(float(np.linalg.norm(first.float32()[5])))
